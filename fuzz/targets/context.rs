//! Contexts of every format: nothing panics, ids have their limits, no token is believed that the third party did not
//! sign, and JSON pointers find what RFC 6901 says.

use std::sync::LazyLock;

use countersign::{
    callback::{CredentialSettings, Credentials, open},
    command::{ResolvedBy, TaskRef},
    context::{
        Format, JsonFields, OnUnresolved, ResolveInput, Settings,
        jwt::{Demands, KeySettings, Keys},
        pattern::{Over, Pattern},
        resolve,
    },
    secret::Secret,
    time::Timestamp,
};
use serde_json::{Value, json};

static CREDENTIALS: LazyLock<Credentials> = LazyLock::new(|| {
    Credentials::new(&[CredentialSettings {
        action_callback_token: Secret::new("t"),
        action_callback_key: None,
    }])
});

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let key = |kid: &str| KeySettings::Hs256 {
        kid: Some(kid.to_owned()),
        secret: Secret::new(format!("fake-secret-of-thirty-two-bytes-{kid}")),
    };
    Keys::new(&[key("k1"), key("k2")], Demands { require: Vec::new(), ..Demands::default() })
        .expect("long enough")
});

static PATTERNS: LazyLock<[Pattern; 3]> = LazyLock::new(|| {
    let pattern = |text, over| Pattern::new(text, over).expect("a pattern");
    [
        pattern(r"(?P<instance_id>[^:]+):(?P<task_id>.*)", Over::ActionContext),
        pattern(r"(?x) (?P<task_id> \w+ ) (?: - (?P<round> \d* ) )? ", Over::ActionContext),
        pattern(r"(?is)(?P<instance_id>.+?)/(?P<task_id>.+)", Over::InstanceId),
    ]
});

fn settings(format: Format) -> Settings {
    Settings { formats: vec![format], on_unresolved: OnUnresolved::Refuse }
}

/// What a pointer finds, by the parser of a library that has nothing to do with ours.
fn pointed_at(context: &str, pointer: &str) -> Option<String> {
    match serde_json::from_str::<Value>(context).ok()?.pointer(pointer)? {
        Value::String(text) => Some(text.clone()),
        // Through a float, large numbers are others: these are not compared.
        Value::Number(number) if number.is_u64() || number.is_i64() => Some(number.to_string()),
        _ => None,
    }
}

pub(super) fn run(data: &[u8]) {
    let Some((context, pointer, instance_id, task_id)) =
        super::read::<(&str, &str, Option<&str>, Option<&str>)>(data)
    else {
        return;
    };
    let body =
        json!({ "token": "t", "action_context": context, "instance_id": instance_id, "task_id": task_id });
    let Ok(callback) = open(&CREDENTIALS, body.to_string().as_bytes()) else { return };
    let surroundings = ResolveInput { endpoint: "e", now: Timestamp::UNIX_EPOCH, registered: None };
    let read = |format| resolve(&settings(format), &callback, surroundings);
    let limits = |task: &TaskRef| {
        let ids = [&task.instance_id, &task.task_id, &task.round, &task.business_key];
        assert!(ids.into_iter().flatten().all(|id| (1..=512).contains(&id.len())), "{task:?}");
        assert!(task.instance_id.is_some() || task.task_id.is_some(), "{task:?}");
    };

    // Nobody but the third party has the keys, and no fuzzer finds a MAC.
    if let Ok(task) = read(Format::Jwt(KEYS.clone())) {
        panic!("a forged token: {task:?}");
    }
    for pattern in &*PATTERNS {
        if let Ok(task) = read(Format::Pattern(pattern.clone())) {
            limits(&task);
            assert_eq!(task.resolved_by, Some(ResolvedBy::Pattern));
        }
    }
    if pointer.starts_with('/') {
        let at = |pointer: &str| Some(pointer.to_owned());
        let fields =
            JsonFields { task_id: at(pointer), round: at("/r"), data: at("/d"), ..JsonFields::default() };
        if let Ok(task) = read(Format::Json(fields)) {
            limits(&task);
            // `~2` and the like are no escapes, and an index may not begin with a zero or a sign: only our own
            // configuration writes pointers, so what is odd about them is not compared.
            let plain = !pointer.contains('~') && !pointer.contains(['+', '0']);
            if let (true, Some(found)) = (plain && task_id.is_none(), pointed_at(context, pointer)) {
                assert_eq!(task.task_id, (!found.is_empty()).then_some(found));
            }
        }
    }
}
