//! No fault at all, and an oracle that has to notice what is planted: the ground that the others stand on.

use crate::oracle::{Decision, Oracle};
use crate::support::{App, Vhost, Worker};
use std::collections::BTreeMap;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fault_all_arrives_once_and_in_order() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    let load = oracle.load(&app, 8);
    load.until_answered(300).await;
    load.stop().await;
    oracle.keep(&app, 5).await;
    let figures = oracle.account(&app, &worker).await.check("no fault");
    assert_eq!((figures.unknown, figures.published_again, figures.parked), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oracle_notices_what_is_missing_changed_strange_or_out_of_order() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    // One task, decided in turn by three operators.
    for operator in 0..3 {
        let decision = Decision::new("one-task", operator);
        let answer = app.post("purchase", decision.body()).await;
        oracle.note(decision, Some(&answer), true);
    }
    let refused = Decision::new("refused", 0);
    oracle.note(refused.clone(), Some(&app.post("purchase", b"{}".to_vec()).await), true);
    let messages = worker.messages(3).await;
    let nothing = BTreeMap::new();
    let verdict = |messages: &[_]| oracle.compare(messages, &nothing, Duration::ZERO);

    let good = verdict(&messages);
    assert!(good.missing.is_empty() && good.strangers.is_empty() && good.changed.is_empty(), "{good}");
    assert_eq!((good.answered, good.arrived, good.out_of_order), (3, 3, 0));
    assert_eq!(verdict(&messages[1..]).missing.len(), 1);

    let mut swapped = messages.clone();
    swapped.swap(0, 1);
    assert_eq!(verdict(&swapped).out_of_order, 1);

    let mut changed = messages.clone();
    let text = String::from_utf8(changed[0].body.clone()).unwrap();
    changed[0].body = text.replace("\"action_type\":\"APPROVE\"", "\"action_type\":\"REJECT\"").into_bytes();
    assert_eq!(verdict(&changed).changed.len(), 1);

    let mut repeated = messages.clone();
    repeated.push(messages[0].clone());
    assert_eq!(verdict(&repeated).published_again, 1);

    let mut strange = messages.clone();
    let text = String::from_utf8(strange[0].body.clone()).unwrap();
    strange[0].body = text.replace("one-task", "refused").into_bytes();
    assert_eq!(verdict(&strange).strangers.len(), 1, "a refused decision was published");
}
