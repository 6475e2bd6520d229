use super::*;
use crate::secret::Secret;

fn tap(plain: &str, key: Option<&str>) -> Tap {
    let request = Request::new(
        "http://127.0.0.1:1/callbacks/purchase".to_owned(),
        key.map(Secret::new),
        Some(Secret::new("fake\"token")),
        plain.as_bytes().to_vec(),
    );
    Tap {
        id: 0,
        at: 1,
        source: Source::Button,
        origin: "card",
        target: Target::Card(7),
        user: "zhang3".to_owned(),
        action: "APPROVE".to_owned(),
        next_status: None,
        request,
        patience_ms: 10,
        answer: None,
        command: None,
        report: None,
        turns: Vec::new(),
    }
}

fn answered(command: &str) -> Answer {
    let text = json!({ "code": 0, "data": { "command_id": command, "status": "accepted" } }).to_string();
    Answer::new(Some(200), 3, Some(text), Ok("提交成功".to_owned()))
}

fn arrived(command: &str) -> Arrived {
    Arrived {
        command_id: command.to_owned(),
        routing_key: "approval.purchase.-.approve".to_owned(),
        headers: "{}".to_owned(),
        body: json!({ "message_id": "7", "action_type": "APPROVE", "operator": { "user_id": "zhang3" } })
            .to_string(),
        at: 2,
    }
}

fn report() -> Reported {
    Reported { word: "applied".to_owned(), message: None, at: 3 }
}

#[test]
fn so_many_taps_are_kept_and_no_more_bytes_than_so_many() {
    let mut taps = Taps::default();
    for _ in 0..MOST + 5 {
        taps.begin(tap("{}", None));
    }
    assert_eq!((taps.kept.len(), taps.newest().unwrap().id), (MOST, MOST as u64 + 5));
    assert!(taps.get(5).is_none() && taps.get(6).is_some());

    let large = "x".repeat(KEPT_REQUEST_BYTES - 100);
    for _ in 0..MOST {
        taps.begin(tap(&large, None));
    }
    let bytes: usize = taps.kept.iter().map(Tap::bytes).sum();
    assert!(bytes <= MOST_BYTES && taps.bytes == bytes, "{bytes}");
    assert!(taps.kept.len() < MOST, "{}", taps.kept.len());

    let id = taps.begin(tap(&"x".repeat(2 << 20), Some("fake-key")));
    let kept = taps.get(id).unwrap();
    assert!(!kept.request.is_kept() && kept.bytes() < 1024, "{}", kept.bytes());
}

#[test]
fn whatever_a_worker_sends_is_cut() {
    let mut taps = Taps::default();
    let id = taps.begin(tap("{}", None));
    taps.answered(id, answered("a"));
    taps.arrived(Arrived { body: "文".repeat(1 << 20), headers: "h".repeat(1 << 20), ..arrived("a") });
    taps.reported("a", Reported { message: Some("m".repeat(1 << 20)), ..report() });
    for turn in 0..100 {
        taps.card_turned(7, "BUTTONS", &format!("{turn}{}", "s".repeat(10_000)));
    }
    let kept = taps.get(id).unwrap();
    assert!(kept.bytes() < 100 << 10, "{}", kept.bytes());
    assert_eq!(kept.turns.len(), KEPT_TURNS);
    for _ in 0..1000 {
        taps.arrived(arrived("of nobody"));
    }
    assert_eq!(taps.early.len(), EARLY);
}

#[test]
fn the_token_is_masked_in_everything_that_is_shown() {
    let plain = json!({ "action_type": "APPROVE", "token": "fake\"token" }).to_string();
    for key in [None, Some("fake-key")] {
        let mut taps = Taps::default();
        let id = taps.begin(tap(&plain, key));
        let echo = format!("you sent {plain} and fake\"token");
        taps.answered(id, Answer::new(Some(422), 1, Some(echo.clone()), Err(echo)));
        let told = told(taps.get(id).unwrap());
        let shown = format!("{told} {}", told["request"]["decrypted"].as_str().unwrap());
        for secret in ["fake\"token", r#"fake\"token"#, r#"fake\\\"token"#] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(shown.contains("\"token\":\"**********\""), "{shown}");
    }
}

#[test]
fn an_edited_body_has_the_token_where_the_mask_was() {
    let plain = json!({ "action_type": "APPROVE", "token": "fake\"token" }).to_string();
    let request = tap(&plain, None).request;
    let edited = request.with_plain(&request.shown_plain().replace("APPROVE", "REJECT"));
    assert_eq!(String::from_utf8(edited.bytes()).unwrap(), plain.replace("APPROVE", "REJECT"));
}

#[test]
fn a_command_is_that_of_the_tap_that_was_answered_with_it() {
    let mut taps = Taps::default();
    let [first, second] = [taps.begin(tap("{}", None)), taps.begin(tap("{}", None))];
    taps.answered(first, answered("a"));
    taps.answered(second, answered("a"));
    taps.arrived(arrived("a"));
    taps.reported("a", report());
    taps.card_turned(7, "BUTTONS", "APPROVED");
    let first = taps.get(first).unwrap();
    assert!(first.command.is_some() && first.report.is_some());
    assert_eq!(first.turns.len(), 1, "the card's change goes where the report went");
    assert!(taps.get(second).unwrap().command.is_none(), "a duplicate has no command of its own");
    assert_eq!(taps.of_command("a").unwrap().id, 1);
}

#[test]
fn a_command_may_come_before_the_answer_that_names_it() {
    let mut taps = Taps::default();
    taps.arrived(arrived("a"));
    taps.reported("a", report());
    let id = taps.begin(tap("{}", None));
    taps.answered(id, answered("a"));
    let tap = taps.get(id).unwrap();
    assert!(tap.command.is_some() && tap.report.is_some());
}

#[test]
fn a_command_whose_answer_never_came_is_known_by_its_members() {
    let mut taps = Taps::default();
    let id = taps.begin(tap("{}", None));
    taps.answered(id, Answer::new(None, 10, None, Err("提交失败".to_owned())));
    taps.arrived(Arrived { body: "{}".to_owned(), ..arrived("of somebody else") });
    assert!(taps.get(id).unwrap().command.is_none());
    taps.arrived(arrived("a"));
    assert_eq!(taps.get(id).unwrap().command.as_ref().unwrap().command_id, "a");
}

#[test]
fn a_flipped_byte_and_a_wrong_key_change_the_bytes_and_not_the_form() {
    let request = tap(r#"{"action_type":"APPROVE"}"#, Some("fake-key")).request;
    let flipped = request.with_flipped_byte();
    let (before, after) = (request.sealed().unwrap(), flipped.sealed().unwrap());
    assert_eq!(before[..before.len() - 1], after[..after.len() - 1]);
    assert_eq!(before[before.len() - 1] ^ 1, after[after.len() - 1]);
    let other = request.under_wrong_key();
    assert_eq!(other.sealed().unwrap().len(), before.len());
    assert!(flipped.spoiled && other.spoiled && !request.spoiled);
}

#[test]
fn the_word_of_an_answer_is_what_became_of_the_callback() {
    let word = |body: Value| Answer::new(Some(200), 1, Some(body.to_string()), Ok(String::new())).word;
    assert_eq!(
        word(json!({ "code": 0, "msg": "success", "data": { "status": "duplicate" } })).unwrap(),
        "duplicate"
    );
    assert_eq!(
        word(json!({ "code": 40901, "msg": "declined", "data": { "status": "accepted" } })).unwrap(),
        "declined"
    );
    assert_eq!(word(json!("gateway")), None);
}
