//! Calls to a platform that breaks connections: which requests are retried.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::SeqCst},
};

use super::{double, *};

/// Breaks the connection of the first calls after reading them completely, and answers the others.
struct Platform {
    inner: double::Platform,
    asked: Arc<AtomicU32>,
}

impl Platform {
    async fn that_breaks_off(breaks: u32, answer: &'static str) -> Self {
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        let inner = double::Platform::start(move |_| {
            let breaks_off = count.fetch_add(1, SeqCst) < breaks;
            async move { (!breaks_off).then_some(answer) }
        });
        Self { inner: inner.await, asked }
    }

    fn center(&self) -> Center {
        self.inner.center()
    }

    fn asked(&self) -> u32 {
        self.asked.load(SeqCst)
    }
}

const SENT: &str = r#"{"code":0,"msg":"success","data":{"message_id":"7"}}"#;

#[tokio::test]
async fn a_message_without_a_uuid_is_never_sent_twice() {
    let platform = Platform::that_breaks_off(1, SENT).await;
    let error = platform.center().send_message(&Message::default()).await.unwrap_err();
    assert!(matches!(error, Error::Transport { sent: true, .. }), "{error}");
    assert_eq!(platform.asked(), 1);
    assert!(!format!("{error:?}").contains("hush"), "{error:?}");
}

#[tokio::test]
async fn a_message_with_a_uuid_is_sent_until_it_is_answered() {
    let platform = Platform::that_breaks_off(2, SENT).await;
    let message = Message { uuid: Some("u-1".to_owned()), ..Message::default() };
    assert_eq!(platform.center().send_message(&message).await.unwrap(), "7");
    assert_eq!(platform.asked(), 3);
}

#[tokio::test]
async fn an_answer_that_never_comes_ends_the_attempts() {
    let platform = Platform::that_breaks_off(u32::MAX, SENT).await;
    let center = platform.center();
    let error = center.user("zhang3", &UserIdType::UserId).await.unwrap_err();
    assert!(error.is_away(), "{error}");
    assert_eq!(platform.asked(), 5);
    assert!(!format!("{center:?}").contains("hush"), "neither secret nor token is in Debug");
}
