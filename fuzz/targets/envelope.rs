//! Raw bodies at endpoints of every kind: nothing panics, nobody gets in without a token, and what is encrypted with
//! the right token is read as the same thing is read where it is plain.

use std::sync::LazyLock;

use countersign::{
    callback::{
        CredentialSettings, Credentials, OpenError, Verified,
        cipher::{self, Key},
        open,
    },
    secret::Secret,
};

const TOKEN: &str = "fake-token";
const KEY: &str = "fake-key";

fn credentials(list: &[(&str, Option<&str>)]) -> Credentials {
    let settings: Vec<_> = list
        .iter()
        .map(|(token, key)| CredentialSettings {
            action_callback_token: Secret::new(*token),
            action_callback_key: key.map(Secret::new),
        })
        .collect();
    Credentials::new(&settings)
}

static PLAIN: LazyLock<Credentials> = LazyLock::new(|| credentials(&[(TOKEN, None)]));
static SEALED: LazyLock<Credentials> =
    LazyLock::new(|| credentials(&[("fake-other", Some("fake-other-key")), (TOKEN, Some(KEY))]));

/// Everything but which credential it was.
fn told(result: &Result<Verified, OpenError>) -> String {
    match result {
        Ok(read) => format!(
            "{:?}",
            (
                (&read.action_type, &read.action_context, &read.user_id, &read.approval_code),
                (&read.instance_id, &read.task_id, read.message_id, &read.id),
                (&read.reason, &read.attachments, &read.extra, read.origin()),
            )
        ),
        Err(error) => format!("{error:?}"),
    }
}

pub(super) fn run(body: &[u8]) {
    let plain = open(&PLAIN, body);
    // As it comes, at an endpoint with keys: whoever wrote this has no key.
    assert!(matches!(open(&SEALED, body), Err(OpenError::Unauthenticated { .. })));
    if let Ok(read) = &plain {
        let text = std::str::from_utf8(body).expect("what is read is text");
        assert!(text.contains("token"), "in without a token: {text}");
        let ids = [&read.user_id, &read.approval_code, &read.instance_id, &read.task_id, &read.id];
        assert!(ids.into_iter().flatten().all(|id| (1..=512).contains(&id.len())));
    }
    // The same under the key. What a plain body cannot be authenticated as, no cipher makes authentic.
    let text = cipher::encrypt(&Key::derive(&Secret::new(KEY)), [7; 16], body);
    let sealed = open(&SEALED, format!("{{\"encrypt\":\"{text}\"}}").as_bytes());
    match (&plain, &sealed) {
        (Ok(_), Ok(read)) => {
            assert_eq!(read.credential, 1);
            assert_eq!(told(&plain), told(&sealed));
        }
        // No JSON is malformed in the open, and a stranger's in a cipher.
        (Err(_), Err(_)) => {}
        // A plain body with an `encrypt` in it is void; inside a cipher that member means nothing.
        (Err(OpenError::Unauthenticated { .. }), Ok(_)) => {
            assert!(
                std::str::from_utf8(body).is_ok_and(|text| text.contains("crypt") || text.contains("\\u"))
            );
        }
        _ => panic!("{plain:?} in the open, {sealed:?} in a cipher"),
    }
}
