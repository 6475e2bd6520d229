//! Form widgets and their values (platform.md#form-widgets). Undocumented values are kept unchanged.

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::{Number, Value};

use super::lenient;

/// One widget with its value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Widget {
    /// The id.
    pub id: String,
    /// Custom id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_id: Option<String>,
    /// The name.
    pub name: String,
    /// The type, which determines the format of the value.
    #[serde(rename = "type")]
    pub kind: String,
    /// The value.
    pub value: WidgetValue,
    /// Details of the value, such as file names: a text of quoted names, or anything else.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub ext: Value,
}

/// The value of a widget, by its type.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum WidgetValue {
    /// `input`, `textarea`, `date` (RFC 3339), `radio`, `radioV2`, `address`
    Text(String),
    /// `number`, `amount`, `formula`
    Number(Number),
    /// `contact`
    People {
        /// As `user_id`.
        user_ids: Vec<String>,
        /// As `open_id`.
        open_ids: Vec<String>,
    },
    /// `attachment`, `attachmentV2`, `image`, `imageV2`: URLs, valid for 12 hours
    Files(Vec<String>),
    /// `connect`: codes of instances
    Instances(Vec<String>),
    /// `checkbox`, `checkboxV2`: the ticked options
    Options(Vec<String>),
    /// `department`: their open ids
    Departments(Vec<String>),
    /// `fieldList`: rows of widgets
    Rows(Vec<Vec<Widget>>),
    /// `dateInterval`
    Interval(Interval),
    /// `document`
    Document(Document),
    /// `leaveGroup`, `leaveGroupV2`
    Leave(Leave),
    /// `remedyGroup`
    Remedy(Remedy),
    /// `shiftGroup`
    Shift(Shift),
    /// `workGroup`
    Work(Work),
    /// `tripGroup`
    Trip(Trip),
    /// `telephone`
    Telephone(Telephone),
    /// Another type, or an undocumented value, unchanged.
    Other(Value),
}

macro_rules! shape {
    ($(#[$about:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[$attribute])* #[doc = concat!("`", stringify!($field), "`")] pub $field: $type,)+
        }
    };
}

shape! {
    /// An interval (RFC 3339) and its length in days.
    Interval { start: String, end: String, interval: Option<Number> }
}
shape! {
    /// A cloud document.
    Document {
        token: String,
        #[serde(rename = "type")]
        kind: String,
        title: String,
        url: String,
    }
}
shape! {
    /// A leave; `unit` is `DAY` or `HOUR`, only for `leaveGroupV2`.
    Leave {
        name: String,
        start: String,
        end: String,
        interval: Option<Number>,
        #[serde(skip_serializing_if = "String::is_empty")]
        unit: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        reason: String,
    }
}
shape! {
    /// A missed clock-in.
    Remedy { time: String, reason: String }
}
shape! {
    /// A swapped shift.
    Shift {
        #[serde(rename = "shiftTime")]
        shift_time: String,
        #[serde(rename = "returnTime")]
        return_time: String,
        reason: String,
    }
}
shape! {
    /// Overtime.
    Work { name: String, start: String, end: String, interval: Option<Number>, reason: String }
}
shape! {
    /// A business trip; `peer` has the companions' user ids.
    Trip {
        schedule: Vec<TripLeg>,
        interval: Option<Number>,
        reason: String,
        #[serde(deserialize_with = "lenient::texts")]
        peer: Vec<String>,
    }
}
shape! {
    /// A leg of a trip. v4 has `transport`, v2 has `transportation`; `oneRound` is one way or there and back.
    TripLeg {
        start: String,
        end: String,
        interval: Option<Number>,
        departure: String,
        destination: String,
        #[serde(alias = "transportation")]
        transport: String,
        #[serde(rename = "oneRound")]
        one_round: String,
        remark: String,
    }
}
shape! {
    /// A telephone number; read with underscores, written without (platform.md#inconsistent-spellings).
    Telephone {
        #[serde(alias = "countryCode")]
        country_code: String,
        #[serde(alias = "nationalNumber")]
        national_number: String,
    }
}

#[derive(Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct Raw {
    #[serde(deserialize_with = "lenient::text")]
    id: String,
    #[serde(deserialize_with = "lenient::maybe")]
    custom_id: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    name: String,
    #[serde(rename = "type")]
    kind: String,
    value: Value,
    open_ids: Vec<String>,
    ext: Value,
}

impl<'de> Deserialize<'de> for Widget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Raw { id, custom_id, name, kind, value, open_ids, ext } = Raw::deserialize(deserializer)?;
        let value = of_kind(&kind, &value, open_ids).unwrap_or(WidgetValue::Other(value));
        Ok(Self { id, custom_id, name, kind, value, ext })
    }
}

/// Parses a form.
pub(super) fn parse(form: &str) -> Result<Vec<Widget>, serde_json::Error> {
    if form.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut value: Value = serde_json::from_str(form)?;
    lenient::prune(&mut value);
    serde_json::from_value(value)
}

fn of_kind(kind: &str, value: &Value, open_ids: Vec<String>) -> Option<WidgetValue> {
    #[derive(Deserialize)]
    struct Texts(#[serde(deserialize_with = "lenient::texts")] Vec<String>);
    #[derive(Deserialize)]
    #[serde(expecting = "an object")]
    struct Department {
        open_id: String,
    }
    fn read<T: DeserializeOwned>(value: &Value) -> Option<T> {
        T::deserialize(value).ok()
    }
    let texts = || read::<Texts>(value).map(|texts| texts.0);
    // Shapes accept any object, so an empty one is excluded here.
    let object = value.as_object().is_some_and(|members| !members.is_empty());
    match kind {
        "input" | "textarea" | "date" | "radio" | "radioV2" | "address" => {
            value.as_str().map(|text| WidgetValue::Text(text.to_owned()))
        }
        "number" | "amount" | "formula" => read(value).map(WidgetValue::Number),
        "contact" => texts().map(|user_ids| WidgetValue::People { user_ids, open_ids }),
        "attachment" | "attachmentV2" | "image" | "imageV2" => texts().map(WidgetValue::Files),
        "connect" => texts().map(WidgetValue::Instances),
        "checkbox" | "checkboxV2" => texts().map(WidgetValue::Options),
        "department" => read::<Vec<Department>>(value)
            .map(|list| WidgetValue::Departments(list.into_iter().map(|one| one.open_id).collect())),
        "fieldList" => read(value).map(WidgetValue::Rows),
        "dateInterval" if object => read(value).map(WidgetValue::Interval),
        "document" if object => read(value).map(WidgetValue::Document),
        "leaveGroup" | "leaveGroupV2" | "widgetLeaveGroupV2" if object => read(value).map(WidgetValue::Leave),
        "remedyGroup" if object => read(value).map(WidgetValue::Remedy),
        "shiftGroup" if object => read(value).map(WidgetValue::Shift),
        "workGroup" if object => read(value).map(WidgetValue::Work),
        "tripGroup" if object => read(value).map(WidgetValue::Trip),
        "telephone" if object => read(value).map(WidgetValue::Telephone),
        _ => None,
    }
}

impl WidgetValue {
    /// The value on one line, for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let span = |start: &str, end: &str| format!("{start} to {end}");
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::People { user_ids, .. } => user_ids.join(", "),
            Self::Files(list) | Self::Instances(list) | Self::Options(list) | Self::Departments(list) => {
                list.join(", ")
            }
            Self::Rows(rows) => rows
                .iter()
                .map(|row| {
                    let cells: Vec<_> = row
                        .iter()
                        .map(|widget| {
                            let name = if widget.name.is_empty() { &widget.id } else { &widget.name };
                            format!("{name}: {}", widget.value.summary())
                        })
                        .collect();
                    format!("[{}]", cells.join("; "))
                })
                .collect::<Vec<_>>()
                .join(" "),
            Self::Interval(value) => span(&value.start, &value.end),
            Self::Document(value) => format!("{} {}", value.title, value.url),
            Self::Leave(value) => format!("{}, {}", value.name, span(&value.start, &value.end)),
            Self::Remedy(value) => format!("{}: {}", value.time, value.reason),
            Self::Shift(value) => {
                format!("{}, back {}: {}", value.shift_time, value.return_time, value.reason)
            }
            Self::Work(value) => {
                format!("{}, {}: {}", value.name, span(&value.start, &value.end), value.reason)
            }
            Self::Trip(value) => {
                let legs: Vec<_> = value
                    .schedule
                    .iter()
                    .map(|leg| format!("{} to {} by {}", leg.departure, leg.destination, leg.transport))
                    .collect();
                format!("{}: {}", legs.join(", "), value.reason)
            }
            Self::Telephone(value) => format!("{} {}", value.country_code, value.national_number),
            Self::Other(value) => value.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn widget(kind: &str, value: Value) -> Widget {
        serde_json::from_value(json!({ "id": "widget1", "name": "n", "type": kind, "value": value })).unwrap()
    }

    #[test]
    fn every_documented_shape_is_read_as_itself() {
        let cases = [
            ("input", json!("data"), "data"),
            ("textarea", json!("aaaa"), "aaaa"),
            ("date", json!("2019-10-01T08:12:01+08:00"), "2019-10-01T08:12:01+08:00"),
            ("radioV2", json!("one"), "one"),
            ("address", json!("China/Beijing/chang an jie"), "China/Beijing/chang an jie"),
            ("number", json!(1234.56), "1234.56"),
            ("amount", json!(7), "7"),
            ("contact", json!(["f8ca557e"]), "f8ca557e"),
            ("attachmentV2", json!(["https://e/1", "https://e/2"]), "https://e/1, https://e/2"),
            ("imageV2", json!(["https://e/1"]), "https://e/1"),
            ("connect", json!(["81D31358"]), "81D31358"),
            ("checkbox", json!(["Item 1"]), "Item 1"),
            ("department", json!([{ "open_id": "od-1" }]), "od-1"),
            (
                "dateInterval",
                json!({ "start": "2019-10-01", "end": "2019-10-02", "interval": 2.0 }),
                "2019-10-01 to 2019-10-02",
            ),
            (
                "document",
                json!({ "token": "dox", "type": "doc", "title": "title", "url": "https://e/d" }),
                "title https://e/d",
            ),
            (
                "leaveGroup",
                json!({ "name": "annual leave", "start": "a", "end": "b", "interval": 2.0 }),
                "annual leave, a to b",
            ),
            (
                "widgetLeaveGroupV2",
                json!({ "name": "annual", "start": "a", "end": "b", "interval": 2.0, "unit": "DAY", "reason": "out" }),
                "annual, a to b",
            ),
            ("remedyGroup", json!({ "time": "t", "reason": "forgot" }), "t: forgot"),
            ("shiftGroup", json!({ "shiftTime": "a", "returnTime": "b", "reason": "r" }), "a, back b: r"),
            (
                "workGroup",
                json!({ "name": "Overtime pay", "start": "a", "end": "b", "interval": 2.0, "reason": "r" }),
                "Overtime pay, a to b: r",
            ),
            (
                "telephone",
                json!({ "country_code": "+86", "national_number": "13122222222" }),
                "+86 13122222222",
            ),
        ];
        for (kind, value, summary) in cases {
            let read = widget(kind, value.clone());
            assert!(!matches!(read.value, WidgetValue::Other(_)), "{kind} is not recognised");
            assert_eq!(read.value.summary(), summary, "{kind}");
            if kind != "contact" && kind != "department" {
                assert_eq!(serde_json::to_value(&read.value).unwrap(), value, "{kind} is not kept whole");
            }
        }
    }

    #[test]
    fn a_trip_is_read_in_the_spelling_of_either_version() {
        for transport in ["transport", "transportation"] {
            let mut leg = json!({ "start": "a", "end": "b", "interval": 123.45, "departure": "Beijing",
                "destination": "Shanghai", "oneRound": "One Way", "remark": "business" });
            leg[transport] = json!("Airplane");
            let value =
                json!({ "schedule": [leg], "interval": 2.0, "reason": "business", "peer": ["f7cb567e"] });
            let read = widget("tripGroup", value);
            let WidgetValue::Trip(trip) = &read.value else { panic!("{read:?}") };
            assert_eq!(
                (trip.schedule[0].transport.as_str(), trip.peer[0].as_str()),
                ("Airplane", "f7cb567e")
            );
            assert_eq!(read.value.summary(), "Beijing to Shanghai by Airplane: business");
        }
    }

    #[test]
    fn a_list_of_fields_has_widgets_in_its_rows() {
        let cell = json!({ "id": "widget2", "type": "checkbox", "value": ["jxpsebqp-0"] });
        let read = widget("fieldList", json!([[cell]]));
        let WidgetValue::Rows(rows) = &read.value else { panic!("{read:?}") };
        assert_eq!(rows[0][0].value, WidgetValue::Options(vec!["jxpsebqp-0".to_owned()]));
        assert_eq!(read.value.summary(), "[widget2: jxpsebqp-0]");
    }

    #[test]
    fn people_come_with_both_of_their_ids() {
        let form = r#"[{"id":"w","name":"n","type":"contact","value":["f8ca557e"],"open_ids":["ou_12345"],"ext":null}]"#;
        let people = WidgetValue::People {
            user_ids: vec!["f8ca557e".to_owned()],
            open_ids: vec!["ou_12345".to_owned()],
        };
        assert_eq!(parse(form).unwrap()[0].value, people);
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn what_is_not_as_documented_is_kept_as_it_came() {
        for (kind, value) in [
            ("hologram", json!({ "depth": 3 })),
            ("number", json!("not a number")),
            ("tripGroup", json!("none")),
            ("telephone", json!({})),
            ("fieldList", json!([{}])),
        ] {
            assert_eq!(widget(kind, value.clone()).value, WidgetValue::Other(value));
        }
    }
}
