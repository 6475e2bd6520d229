//! What a broker may propose, and what it may keep to itself.

use super::ends::Point;
use super::{Event, Rogue, Session, Then, alone};
use crate::oracle::Oracle;
use crate::support::{App, Callback, Config, KEY, Program, eventually};
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::{AMQPClass, channel, connection};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Has it propose these limits in every session.
fn propose(rogue: &Rogue, frame_max: u32, heartbeat: u16) {
    rogue.manner(move |session, event| match event {
        Event::Frame(frame) if Point::StartOk.is(frame) => {
            session.tune(frame_max, heartbeat);
            Then::Nothing
        }
        _ => Then::Usual,
    });
}

/// RabbitMQ with `frame_max = 0` says so. lapin makes buffers of 32 frames of the size that was agreed.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_a_limit_for_frames_is_given_one() {
    for frame_max in [0, u32::MAX] {
        let rogue = Rogue::start().await;
        propose(&rogue, frame_max, 0);
        let mut app = App::with(rogue.config()).await;
        let oracle = Oracle::new();
        oracle.keep(&app, 10).await;
        let figures = oracle.account_of(&app, async || rogue.routed()).await;
        let figures = figures.check(&format!("frames of at most {frame_max} bytes proposed"));
        assert!(app.runs() && figures.arrived == 10);
    }
}

/// 8192 is the least that RabbitMQ 4 can be configured to. All properties of a message go into one frame.
#[tokio::test(flavor = "multi_thread")]
async fn the_longest_identifiers_fit_the_smallest_frames() {
    let rogue = Rogue::start().await;
    propose(&rogue, 8192, 1);
    let app = App::with(rogue.config()).await;
    let long = |letter: &str| letter.repeat(512);
    let callback = Callback::list(&long("i"), &long("t"))
        .with("approval_code", long("c"))
        .operator(&long("o"))
        .context(&"x".repeat(20_000));
    let id = app.post("purchase", callback.encrypted(KEY)).await.command_id();
    eventually("the command to be routed", async || {
        let routed = rogue.routed();
        let found = routed.iter().find(|message| message.message_id() == id).cloned();
        found.ok_or_else(|| (rogue.served(), rogue.received()))
    })
    .await;
    assert_eq!(rogue.served(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_while_it_blocks_is_noticed_by_its_missing_heartbeats() {
    let rogue = Rogue::start().await;
    // No confirm is due while it blocks.
    let app = App::with(rogue.config().set("amqp", "confirm_timeout_ms", "300")).await;
    let oracle = Oracle::new();
    oracle.keep(&app, 5).await;
    rogue.until_routed(0).await;
    rogue.tell(|session| session.block(true)).await;
    app.until_metric("countersign_amqp_blocked", 1.0).await;
    oracle.keep(&app, 5).await;
    rogue.tell(Session::be_silent).await;
    eventually("another session", async || if rogue.served() == 2 { Ok(()) } else { Err(rogue.served()) })
        .await;
    let figures = oracle.account_of(&app, async || rogue.routed()).await.check("blocked, then dead");
    assert_eq!(figures.arrived, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_closed_without_an_error_is_noticed_though_nothing_is_published() {
    let rogue = Rogue::start().await;
    let app = App::with(rogue.config()).await;
    let oracle = Oracle::new();
    oracle.keep(&app, 5).await;
    let _before =
        oracle.account_of(&app, async || rogue.routed()).await.check("before the channel is closed");
    // lapin makes no event of a code that is none of an error, and no confirm is awaited.
    rogue.tell(|session| session.close_channel(200)).await;
    eventually("another session", async || if rogue.served() == 2 { Ok(()) } else { Err(rogue.served()) })
        .await;
    oracle.keep(&app, 5).await;
    let figures = oracle.account_of(&app, async || rogue.routed()).await.check("channel closed while idle");
    assert_eq!((figures.arrived, figures.published_again), (10, 0));
}

/// The CPU time of the program so far, in hundredths of a second.
fn cpu_ticks(app: &App) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", app.pid())).expect("Linux");
    // The name of the program may hold anything; what follows it does not.
    let fields: Vec<&str> =
        stat.rsplit_once(')').expect("a name in parentheses").1.split_whitespace().collect();
    [11, 12].iter().map(|field| fields[*field].parse::<u64>().expect("a number")).sum()
}

/// A connection has a thread of its own, which could turn in a circle as easily as wait.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_broker_costs_no_cpu() {
    for name in ["blocked", "silent", "flow stopped", "half a frame"] {
        let wait = move |session: &mut Session| match name {
            "blocked" => session.block(true),
            "silent" => session.be_silent(),
            "flow stopped" => session.stop_flow(),
            _ => session.say(b"\x03\x00\x01\x00\x01\x00\x00{"),
        };
        let rogue = Rogue::start().await;
        let app =
            App::with(alone(Config::with_url(&rogue.url().replace("heartbeat=1", "heartbeat=60")))).await;
        let oracle = Oracle::new();
        oracle.keep(&app, 5).await;
        rogue.until_received(5).await;
        rogue.tell(wait).await;
        rogue.hold();
        // Something to write, too.
        oracle.keep(&app, 20).await;
        let (began, before) = (Instant::now(), cpu_ticks(&app));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (spent, passed) = (cpu_ticks(&app) - before, began.elapsed());
        // A thread that turns would have spent half of it even on a machine with two cores and four such programs.
        assert!(Duration::from_millis(spent * 10) < passed / 4, "{name}: {spent} ticks in {passed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_does_not_wait_for_ever_for_a_broker_that_is_silent() {
    for point in
        [Point::Accepted, Point::Header, Point::Open, Point::ChannelOpen, Point::QueueDeclare, Point::Consume]
    {
        let rogue = Rogue::start().await;
        rogue.manner(move |session, event| {
            let come = match event {
                Event::Accepted => point == Point::Accepted,
                Event::Frame(frame) => point.is(frame),
                _ => false,
            };
            if come {
                session.be_silent();
                return Then::Nothing;
            }
            Then::Usual
        });
        let config = rogue.config().set("amqp", "connect_timeout_ms", "1000");
        let ran = Program::new(["tail", "--count", "1"]).config(&config.write()).run().await.ended_with(69);
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{point:?}: {ran:?}");
    }
}

/// A broker that is not told writes of a client that went away unexpectedly, and somebody looks for the fault.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_tells_the_broker() {
    let rogue = Rogue::start().await;
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    rogue.manner(move |_, event| {
        let words = match event {
            Event::Frame(AMQPFrame::Method(_, AMQPClass::Channel(channel::AMQPMethod::Close(_)))) => {
                Some("the channel".to_owned())
            }
            Event::Frame(AMQPFrame::Method(
                _,
                AMQPClass::Connection(connection::AMQPMethod::Close(close)),
            )) => Some(close.reply_text.to_string()),
            _ => None,
        };
        heard.lock().unwrap().extend(words);
        Then::Usual
    });
    let mut app = App::with(rogue.config()).await;
    eventually("a session", async || if rogue.served() > 0 { Ok(()) } else { Err(rogue.accepted()) }).await;
    app.terminate();
    assert!(app.ended().await.success());
    assert_eq!(*said.lock().unwrap(), ["the channel", "OK"]);
    // Whatever else the doctor finds.
    Program::new(["doctor"]).config(app.file()).run().await;
    let said = said.lock().unwrap().clone();
    assert!(said.contains(&"doctor has ended".to_owned()), "{said:?}");
}
