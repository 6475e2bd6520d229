//! Every way to end a session, at every point of it; and what a session that ended leaves behind.

use super::{Event, Rogue, Session, Then};
use crate::oracle::{Oracle, trickle};
use crate::support::{App, eventually};
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, connection, exchange, queue};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Where in a session something happens, instead of what a broker should do there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    Accepted,
    Header,
    StartOk,
    TuneOk,
    Open,
    ChannelOpen,
    ExchangeDeclare,
    QueueDeclare,
    QueueBind,
    ConfirmSelect,
    Consume,
    /// After the method of a publish, before its header.
    Publish,
    /// After the header of a publish, before its body.
    PublishHeader,
    /// After a publish that was received whole, in place of its confirm.
    Published,
    /// After a publish was confirmed.
    Confirmed,
    /// A returned message has begun, and its body is missing.
    Returning,
}

const POINTS: [Point; 15] = [
    Point::Accepted,
    Point::Header,
    Point::StartOk,
    Point::TuneOk,
    Point::Open,
    Point::ChannelOpen,
    Point::ExchangeDeclare,
    Point::QueueDeclare,
    Point::QueueBind,
    Point::ConfirmSelect,
    Point::Publish,
    Point::PublishHeader,
    Point::Published,
    Point::Confirmed,
    Point::Returning,
];

impl Point {
    /// Whether this frame is where the session is at this point.
    pub(super) fn is(self, frame: &AMQPFrame) -> bool {
        match (self, frame) {
            (Self::Header, AMQPFrame::ProtocolHeader(_)) | (Self::PublishHeader, AMQPFrame::Header(..)) => {
                true
            }
            (_, AMQPFrame::Method(_, method)) => matches!(
                (self, method),
                (Self::StartOk, AMQPClass::Connection(connection::AMQPMethod::StartOk(_)))
                    | (Self::TuneOk, AMQPClass::Connection(connection::AMQPMethod::TuneOk(_)))
                    | (Self::Open, AMQPClass::Connection(connection::AMQPMethod::Open(_)))
                    | (Self::ChannelOpen, AMQPClass::Channel(channel::AMQPMethod::Open(_)))
                    | (Self::ExchangeDeclare, AMQPClass::Exchange(exchange::AMQPMethod::Declare(_)))
                    | (Self::QueueDeclare, AMQPClass::Queue(queue::AMQPMethod::Declare(_)))
                    | (Self::QueueBind, AMQPClass::Queue(queue::AMQPMethod::Bind(_)))
                    | (Self::ConfirmSelect, AMQPClass::Confirm(confirm::AMQPMethod::Select(_)))
                    | (Self::Consume, AMQPClass::Basic(basic::AMQPMethod::Consume(_)))
                    | (Self::Publish, AMQPClass::Basic(basic::AMQPMethod::Publish(_)))
            ),
            _ => false,
        }
    }

    /// Whether this is it; says what belongs to the point and not to the ending.
    fn has_come(self, session: &mut Session, event: &Event<'_>) -> bool {
        match (self, event) {
            (Self::Accepted, Event::Accepted) | (Self::Published, Event::Published(_)) => true,
            (Self::Confirmed, Event::Published(tag)) => {
                session.ack(*tag, false);
                true
            }
            (Self::Returning, Event::Published(tag)) => {
                session.begin_return(*tag);
                true
            }
            (point, Event::Frame(frame)) => point.is(frame),
            _ => false,
        }
    }

    /// Whether there is a channel that can be closed.
    fn has_channel(self) -> bool {
        !matches!(
            self,
            Self::Accepted | Self::Header | Self::StartOk | Self::TuneOk | Self::Open | Self::ChannelOpen
        )
    }
}

/// How a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    CloseConnection(u16),
    CloseChannel(u16),
    Finish,
    Reset,
    /// The socket stays, and nothing is read or said.
    Silence,
    Say(Nonsense),
}

/// What no broker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nonsense {
    /// What a web server says to AMQP.
    Http,
    /// The protocol header of another version, and the end.
    OtherVersion,
    /// A frame of an unknown type.
    UnknownFrame,
    /// A frame that does not end where it says.
    WrongEnd,
    /// The beginning of a frame of 4 GiB, and nothing more.
    Endless,
    /// A method nobody knows.
    UnknownMethod,
    /// A confirm of what was never published.
    StrayAck,
    /// A message that was never announced.
    StrayBody,
    /// A frame of a channel that was never opened.
    StrayChannel,
    /// The answer to a question that was not asked.
    StrayOk,
    /// Bytes without a sense.
    Noise,
    /// No more publishes, please; and never again.
    Stop,
}

const ENDINGS: [Ending; 45] = {
    use Ending::{CloseChannel, CloseConnection, Finish, Reset, Say, Silence};
    use Nonsense::{
        Endless, Http, Noise, OtherVersion, Stop, StrayAck, StrayBody, StrayChannel, StrayOk, UnknownFrame,
        UnknownMethod, WrongEnd,
    };
    [
        Finish,
        CloseChannel(404),
        Reset,
        CloseConnection(320),
        Say(Http),
        CloseChannel(406),
        Silence,
        CloseConnection(403),
        Say(OtherVersion),
        CloseChannel(403),
        CloseConnection(530),
        Say(UnknownFrame),
        CloseConnection(541),
        Say(WrongEnd),
        CloseChannel(405),
        CloseConnection(200),
        Say(Endless),
        CloseChannel(200),
        CloseConnection(501),
        Say(UnknownMethod),
        CloseConnection(504),
        CloseChannel(311),
        Say(StrayAck),
        CloseConnection(505),
        Say(StrayBody),
        CloseConnection(506),
        Say(StrayChannel),
        CloseChannel(313),
        CloseConnection(402),
        Say(StrayOk),
        CloseConnection(0),
        Say(Noise),
        CloseChannel(0),
        CloseConnection(502),
        CloseConnection(503),
        CloseConnection(540),
        CloseConnection(999),
        CloseChannel(320),
        CloseChannel(504),
        CloseChannel(506),
        CloseChannel(530),
        CloseChannel(541),
        CloseChannel(999),
        Say(Stop),
        CloseConnection(404),
    ]
};

impl Ending {
    fn come(self, session: &mut Session) {
        match self {
            Self::CloseConnection(code) => session.close_connection(code),
            Self::CloseChannel(code) => session.close_channel(code),
            Self::Finish => session.finish(),
            Self::Reset => session.reset(),
            Self::Silence => session.be_silent(),
            Self::Say(nonsense) => nonsense.say(session),
        }
    }
}

impl Nonsense {
    fn say(self, session: &mut Session) {
        let id = session.channel();
        match self {
            Self::Http => session.say(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
            Self::OtherVersion => {
                session.say(b"AMQP\x00\x01\x00\x00");
                session.finish();
            }
            Self::UnknownFrame => session.say(b"\x07\x00\x01\x00\x00\x00\x01\x00\xce"),
            Self::WrongEnd => session.say(b"\x08\x00\x00\x00\x00\x00\x00\xcd"),
            Self::Endless => session.say(b"\x03\x00\x01\xff\xff\xff\xff\x00"),
            Self::UnknownMethod => session.say(b"\x01\x00\x00\x00\x00\x00\x04\x12\x34\x56\x78\xce"),
            Self::StrayAck => {
                let ack = basic::Ack { delivery_tag: 1 << 40, multiple: false };
                session.send(&AMQPFrame::Method(id, AMQPClass::Basic(basic::AMQPMethod::Ack(ack))));
            }
            Self::StrayBody => session.send(&AMQPFrame::Body(id, b"{}".to_vec())),
            Self::StrayChannel => session.send(&AMQPFrame::Body(id + 7, b"{}".to_vec())),
            Self::StrayOk => {
                let ok = connection::AMQPMethod::OpenOk(connection::OpenOk {});
                session.send(&AMQPFrame::Method(0, AMQPClass::Connection(ok)));
            }
            Self::Stop => session.stop_flow(),
            Self::Noise => {
                let noise: Vec<u8> = (0..=255_u8).map(|byte| byte.wrapping_mul(167) ^ 0x5a).collect();
                session.say(&noise);
            }
        }
    }
}

/// Ends one session so, under load, and waits until the next one publishes and the program knows of it.
async fn end(rogue: &Rogue, app: &App, point: Point, ending: Ending) {
    let times = Arc::new(AtomicUsize::new(0));
    let ended = Arc::clone(&times);
    rogue.manner(move |session, event| {
        if ended.load(Ordering::Relaxed) > 0 || !point.has_come(session, event) {
            return Then::Usual;
        }
        ended.store(1, Ordering::Relaxed);
        ending.come(session);
        Then::Nothing
    });
    // A session that stands is past most points.
    if !matches!(
        point,
        Point::Publish | Point::PublishHeader | Point::Published | Point::Confirmed | Point::Returning
    ) {
        rogue.tell(Session::reset).await;
    }
    eventually(&format!("{point:?} to come"), async || {
        if times.load(Ordering::Relaxed) == 1 { Ok(()) } else { Err((rogue.accepted(), rogue.served())) }
    })
    .await;
    let served = rogue.served();
    let accepted = rogue.accepted();
    let awaited = tokio::time::timeout(crate::support::PATIENCE, rogue.until_routed(5)).await;
    awaited.unwrap_or_else(|_| panic!("{ending:?} at {point:?}: nothing is published any more"));
    assert!(rogue.accepted() >= accepted && rogue.served() >= served);
    // What the broker has confirmed may still be on its way. A session that is reset before any of it arrives has come to
    // nothing, and the program waits longer each time; then the backlog grows, and takes longer to confirm.
    let confirmed = async || app.metric(r#"countersign_publishes_total{result="confirmed"}"#).await;
    let before = confirmed().await;
    eventually("the program to be told", async || {
        let now = confirmed().await;
        if now > before { Ok(()) } else { Err(now) }
    })
    .await;
}

#[expect(
    clippy::print_stderr,
    reason = "the test harness shows it with a failure, and all of it with --nocapture"
)]
async fn end_in_all_these_ways(fault: &str, ways: impl IntoIterator<Item = (Point, Ending)>) {
    let rogue = Rogue::start().await;
    let config =
        rogue.config().set("amqp", "connect_timeout_ms", "400").set("amqp", "confirm_timeout_ms", "400");
    let mut app = App::with(config).await;
    let oracle = Oracle::new();
    let mut count = 0;
    let mut before = Held::default();
    let ending = async {
        rogue.until_routed(10).await;
        before = Held::by(&app);
        for (point, ending) in ways {
            if matches!(ending, Ending::CloseChannel(_)) && !point.has_channel() {
                continue;
            }
            let begun = Instant::now();
            end(&rogue, &app, point, ending).await;
            count += 1;
            eprintln!("{count}: {ending:?} at {point:?}: it goes on after {:.1?}", begun.elapsed());
        }
        rogue.behave();
    };
    trickle(&oracle, &app, ending).await;
    assert!(app.runs(), "the program ended");
    let figures = oracle.account_of(&app, async || rogue.routed()).await;
    // What was returned half is refused by no protocol: its task may be out of order, as after every refusal.
    let figures = figures.check_any_order(&format!("{fault} ({count} ways)"));
    assert_eq!(figures.parked, 0);
    before.is_all_that_is_held(&app).await;
}

/// What the program has of the system for its sessions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    /// Threads that lapin runs, one for each connection.
    io_loops: usize,
    /// Two for each connection, and those of the listeners.
    sockets: usize,
}

impl Held {
    pub(crate) fn by(app: &App) -> Self {
        let entries = |folder| {
            let entries = std::fs::read_dir(format!("/proc/{}/{folder}", app.pid())).expect("Linux");
            entries.flatten().map(|entry| entry.path())
        };
        // What ends between the listing and the look is not held.
        let name = |task: PathBuf| std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        let target = |link: PathBuf| std::fs::read_link(link).unwrap_or_default();
        Self {
            io_loops: entries("task").filter(|task| name(task.clone()).starts_with("lapin")).count(),
            sockets: entries("fd")
                .filter(|link| target(link.clone()).to_string_lossy().starts_with("socket:"))
                .count(),
        }
    }

    /// Waits until it has one connection, and no more sockets than it had, but for some of the test's own clients.
    pub(crate) async fn is_all_that_is_held(self, app: &App) {
        eventually(&format!("no more than {self:?}"), async || {
            let now = Self::by(app);
            if now.io_loops == 1 && now.sockets <= self.sockets + 4 { Ok(()) } else { Err(now) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_ends_a_session_at_whatever_point_nothing_is_lost() {
    // Each ending once, and each point at least twice.
    let ways = ENDINGS.iter().enumerate().map(|(number, ending)| {
        let mut point = POINTS[number % POINTS.len()];
        if matches!(ending, Ending::CloseChannel(_)) && !point.has_channel() {
            point = POINTS[6 + number % (POINTS.len() - 6)];
        }
        (point, *ending)
    });
    // The one ending after which the session goes on, here with a publish that nobody answers.
    let unanswered = [Point::Publish, Point::PublishHeader].map(|point| (point, Ending::Say(Nonsense::Stop)));
    end_in_all_these_ways("a session ended", ways.chain(unanswered)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: every ending at every point, 591 sessions, six minutes"]
async fn every_ending_at_every_point_loses_nothing() {
    let ways = POINTS.iter().flat_map(|point| ENDINGS.iter().map(|ending| (*point, *ending)));
    end_in_all_these_ways("every ending at every point", ways).await;
}

/// lapin takes a code that AMQP does not know for no error and tells nobody; and an idle session publishes nothing that
/// would fail.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_session_notices_a_channel_that_was_closed_with_an_unknown_code() {
    let rogue = Rogue::start().await;
    let app = App::with(rogue.config()).await;
    let stands = async |sessions: usize| {
        eventually(&format!("session {sessions} to stand"), async || {
            let served = rogue.served();
            if served >= sessions { Ok(()) } else { Err(served) }
        })
        .await;
    };
    for (before, code) in [200, 0, 999].into_iter().enumerate() {
        stands(before + 1).await;
        rogue.tell(move |session| session.close_channel(code)).await;
    }
    stands(4).await;
    let oracle = Oracle::new();
    trickle(&oracle, &app, rogue.until_routed(5)).await;
    let figures = oracle.account_of(&app, async || rogue.routed()).await;
    assert_eq!(figures.check("a channel closed with an unknown code").parked, 0);
}
