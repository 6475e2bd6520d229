//! The service and the command line read callbacks alike.

use proptest::prelude::*;

use super::*;

/// Realistic bodies, plain and sealed, valid and broken.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let inside = prop_oneof![
        Just(CARD.to_owned()),
        Just(r#"{"token":"tok-2"}"#.to_owned()),
        Just("{}".to_owned()),
        Just(r#"{"challenge":"c"}"#.to_owned()),
        "\\PC{0,40}",
    ];
    let sealed =
        (inside.clone(), 0..3_usize, any::<[u8; 16]>(), 0..4_usize).prop_map(|(plain, key, iv, breaks)| {
            let text =
                cipher::encrypt(&Key::derive(&Secret::new(["k", "k-2", "other"][key])), iv, plain.as_bytes());
            match breaks {
                0 => format!(r#"{{"encrypt":"{text}"}}"#),
                1 => {
                    format!("\u{feff}{{\"x\":1,\"encrypt\":\"{}\\n\"}}\r\n", text.replacen('/', "\\/", 3))
                }
                2 => format!("{{\"encrypt\":\"{}\\r\\n{}\"}}", &text[..8], &text[8..]),
                _ => format!(r#"{{"encrypt":"{text}","encrypt":"{text}"}}"#),
            }
        });
    let mutated = (sealed.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(body, at, byte)| {
        let mut body = body.into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        body
    });
    prop_oneof![
        sealed.prop_map(String::into_bytes),
        mutated,
        inside.prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..64),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// `countersign decrypt` and the service agree on every body, including the cause.
    #[test]
    fn the_command_line_and_the_service_open_and_refuse_the_same(body in body()) {
        let settings = [("tok-1", Some("k")), ("tok-2", Some("k-2"))];
        let keys = ["k", "k-2"].map(|key| Key::derive(&Secret::new(key)));
        let service = open(&credentials(&settings), &body);
        match decrypt(&keys, &body) {
            // It does not check the token.
            Ok(Decrypted { unreadable: None, .. }) => {
                let known = match &service {
                    Err(OpenError::Unauthenticated { said, .. }) => said.is_some(),
                    Ok(_) | Err(OpenError::Malformed { .. }) => true,
                };
                prop_assert!(known, "{:?}", service);
            }
            Ok(Decrypted { unreadable: Some(cause), .. }) | Err(cause) => {
                prop_assert_eq!(service.err(), Some(OpenError::stranger(cause)));
            }
        }
    }

    /// The simulated platform sends bodies that open, whatever their content.
    #[test]
    fn what_is_sent_opens(plain in prop::collection::vec(any::<u8>(), 0..80), key in "\\PC{1,20}", iv in any::<[u8; 16]>()) {
        let plain = [b"{\"a\":\"", &*plain.escape_ascii().to_string().into_bytes().iter().map(|b| if *b == b'\\' || *b == b'"' { b'.' } else { *b }).collect::<Vec<u8>>(), b"\"}"].concat();
        let key = Key::derive(&Secret::new(&*key));
        let opened = decrypt(std::slice::from_ref(&key), cipher::envelope(&key, iv, &plain).as_bytes()).unwrap();
        prop_assert_eq!((opened.plain, opened.unreadable), (plain, None));
    }
}
