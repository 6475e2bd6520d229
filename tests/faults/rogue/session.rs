//! One connection of the rogue broker: frames in, frames out, and the book of what was answered.

use super::{Answer, Publish, Shared};
use crate::support::Message;
use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame, parse_frame};
use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, connection, exchange, queue};
use amq_protocol::types::FieldTable;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// What the manner is asked about, before the usual thing is done.
pub(crate) enum Event<'a> {
    /// The connection was accepted.
    Accepted,
    /// A frame came.
    Frame(&'a AMQPFrame),
    /// A publish was received whole; it is answered under this tag. Usually by an ack.
    Published(u64),
    /// Some milliseconds have passed.
    Tick,
}

/// Whether the usual thing is still to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Usual,
    Nothing,
}

/// How the socket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Fin,
    Reset,
}

/// A publish whose frames are coming.
struct Coming {
    tag: u64,
    method: basic::Publish,
    header: Option<AMQPContentHeader>,
    body: Vec<u8>,
}

/// A connection, as a manner or an order sees it.
pub(crate) struct Session {
    number: usize,
    shared: Arc<Shared>,
    out: Vec<u8>,
    /// The channel that publishes; 0 before it is open.
    channel: u16,
    /// Frames of it are ignored until it says close-ok.
    channel_closing: bool,
    confirms: bool,
    /// Of the publish that began last. One that is dealt with otherwise takes its tag with it, or every later answer
    /// would confirm the publish before the one it means.
    last_tag: u64,
    /// Tags that have no answer yet.
    waiting: BTreeSet<u64>,
    coming: Option<Coming>,
    /// The method of a publish was dealt with otherwise; so its header and body go nowhere.
    swallows: bool,
    heartbeat: Option<Duration>,
    /// As the client has agreed.
    frame_max: usize,
    silent: bool,
    end: Option<End>,
}

/// How often ticks come.
const TICK: Duration = Duration::from_millis(5);

pub(super) async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    stream.set_nodelay(true).expect("a socket that was just accepted");
    let number = {
        let mut book = shared.book();
        book.accepted += 1;
        book.accepted
    };
    let mut session = Session {
        number,
        shared: Arc::clone(&shared),
        out: Vec::new(),
        channel: 0,
        channel_closing: false,
        confirms: false,
        last_tag: 0,
        waiting: BTreeSet::new(),
        coming: None,
        swallows: false,
        heartbeat: None,
        frame_max: usize::MAX,
        silent: false,
        end: None,
    };
    session.run(&mut stream).await;
    if session.end == Some(End::Reset) {
        stream.set_zero_linger().expect("an open socket");
    }
}

impl Session {
    async fn run(&mut self, stream: &mut TcpStream) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_beat = Instant::now();
        let mut input = Vec::with_capacity(1 << 16);
        self.ask(&Event::Accepted);
        loop {
            if self.end != Some(End::Reset) && !self.out.is_empty() && !self.silent {
                let out = std::mem::take(&mut self.out);
                if stream.write_all(&out).await.is_err() {
                    return;
                }
            }
            if self.end.is_some() {
                return;
            }
            tokio::select! {
                read = stream.read_buf(&mut input), if !self.silent => match read {
                    Ok(0) | Err(_) => return,
                    Ok(_) => self.take(&mut input),
                },
                _ = ticks.tick() => {
                    if self.confirms && let Some(order) = self.shared.order() {
                        order(self);
                    }
                    self.ask(&Event::Tick);
                    if self.heartbeat.is_some_and(|every| last_beat.elapsed() >= every / 2) {
                        last_beat = Instant::now();
                        self.send(&AMQPFrame::Heartbeat);
                    }
                }
            }
        }
    }

    /// Asks the manner, with the manner out of its place so that it may use the session.
    fn ask(&mut self, event: &Event<'_>) -> Then {
        let shared = Arc::clone(&self.shared);
        let mut manner = shared.manner();
        manner(self, event)
    }

    fn take(&mut self, input: &mut Vec<u8>) {
        let mut rest = input.as_slice();
        while self.end.is_none() && !self.silent {
            match parse_frame(rest) {
                Ok((after, frame)) => {
                    let length = rest.len() - after.len();
                    assert!(
                        length <= self.frame_max,
                        "a frame of {length} bytes, where {} are agreed",
                        self.frame_max
                    );
                    rest = after;
                    let method = matches!(&frame, AMQPFrame::Method(_, AMQPClass::Basic(_)));
                    self.swallows &= !method;
                    if matches!(&frame, AMQPFrame::Method(_, AMQPClass::Basic(basic::AMQPMethod::Publish(_))))
                    {
                        self.last_tag += 1;
                    }
                    if self.ask(&Event::Frame(&frame)) == Then::Usual {
                        self.usual(frame);
                    } else {
                        self.swallows |= method;
                    }
                }
                Err(error) if error.is_incomplete() => break,
                Err(error) => panic!("the client sends what is not AMQP: {error:?}"),
            }
        }
        let taken = input.len() - rest.len();
        input.drain(..taken);
    }

    /// What a broker does about a frame.
    fn usual(&mut self, frame: AMQPFrame) {
        match frame {
            AMQPFrame::ProtocolHeader(_) => self.method(
                0,
                AMQPClass::Connection(connection::AMQPMethod::Start(connection::Start {
                    version_major: 0,
                    version_minor: 9,
                    server_properties: FieldTable::default(),
                    mechanisms: "PLAIN AMQPLAIN".into(),
                    locales: "en_US".into(),
                })),
            ),
            AMQPFrame::Method(0, AMQPClass::Connection(method)) => self.connection(method),
            AMQPFrame::Method(id, AMQPClass::Channel(channel::AMQPMethod::CloseOk(_)))
                if id == self.channel =>
            {
                self.channel_closing = false;
                self.channel = 0;
            }
            AMQPFrame::Method(id, _) | AMQPFrame::Header(id, _) | AMQPFrame::Body(id, _)
                if self.channel_closing && id == self.channel => {}
            AMQPFrame::Header(..) | AMQPFrame::Body(..) if self.swallows => {}
            AMQPFrame::Method(id, AMQPClass::Channel(channel::AMQPMethod::Open(_))) => {
                self.channel = id;
                self.method(id, AMQPClass::Channel(channel::AMQPMethod::OpenOk(channel::OpenOk {})));
            }
            AMQPFrame::Method(id, AMQPClass::Channel(channel::AMQPMethod::Close(_))) => {
                self.method(id, AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {})));
            }
            AMQPFrame::Method(_, AMQPClass::Channel(channel::AMQPMethod::FlowOk(_))) => {}
            AMQPFrame::Method(id, AMQPClass::Exchange(exchange::AMQPMethod::Declare(_))) => {
                self.method(id, AMQPClass::Exchange(exchange::AMQPMethod::DeclareOk(exchange::DeclareOk {})));
            }
            AMQPFrame::Method(id, AMQPClass::Queue(queue::AMQPMethod::Declare(declare))) => {
                let ok = queue::DeclareOk { queue: declare.queue, message_count: 0, consumer_count: 0 };
                self.method(id, AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok)));
            }
            AMQPFrame::Method(id, AMQPClass::Queue(queue::AMQPMethod::Bind(_))) => {
                self.method(id, AMQPClass::Queue(queue::AMQPMethod::BindOk(queue::BindOk {})));
            }
            AMQPFrame::Method(id, AMQPClass::Confirm(confirm::AMQPMethod::Select(_))) => {
                self.confirms = true;
                self.shared.book().served += 1;
                self.method(id, AMQPClass::Confirm(confirm::AMQPMethod::SelectOk(confirm::SelectOk {})));
            }
            AMQPFrame::Method(id, AMQPClass::Basic(basic::AMQPMethod::Qos(_))) => {
                self.method(id, AMQPClass::Basic(basic::AMQPMethod::QosOk(basic::QosOk {})));
            }
            AMQPFrame::Method(id, AMQPClass::Basic(basic::AMQPMethod::Consume(consume))) => {
                let ok = basic::ConsumeOk { consumer_tag: consume.consumer_tag };
                self.method(id, AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(ok)));
            }
            AMQPFrame::Method(_, AMQPClass::Basic(basic::AMQPMethod::Publish(method))) => {
                assert!(method.mandatory, "every publish is mandatory");
                let tag = self.last_tag;
                self.coming = Some(Coming { tag, method, header: None, body: Vec::new() });
            }
            AMQPFrame::Header(_, header) => {
                self.coming.as_mut().expect("a publish comes before its header").header = Some(header);
                self.receive();
            }
            AMQPFrame::Body(_, part) => {
                self.coming.as_mut().expect("a publish comes before its body").body.extend(part);
                self.receive();
            }
            AMQPFrame::Heartbeat => {}
            other => panic!("the client sends what no publisher sends: {other}"),
        }
    }

    fn connection(&mut self, method: connection::AMQPMethod) {
        use connection::AMQPMethod as Method;
        let answer = match method {
            Method::StartOk(_) => {
                self.tune(131_072, 1);
                return;
            }
            Method::TuneOk(tuned) => {
                self.frame_max = usize::try_from(tuned.frame_max).expect("32 bits");
                self.heartbeat = Some(Duration::from_secs(u64::from(tuned.heartbeat)));
                return;
            }
            Method::Open(_) => Method::OpenOk(connection::OpenOk {}),
            Method::Close(_) => {
                self.end = Some(End::Fin);
                Method::CloseOk(connection::CloseOk {})
            }
            Method::CloseOk(_) => {
                self.end = Some(End::Fin);
                return;
            }
            other => panic!("the client sends what no client sends: {other:?}"),
        };
        self.method(0, AMQPClass::Connection(answer));
    }

    /// Takes a publish that is whole into the book.
    fn receive(&mut self) {
        let coming = self.coming.as_ref().expect("something is coming");
        let Some(header) = &coming.header else { return };
        if (coming.body.len() as u64) < header.body_size {
            return;
        }
        let Coming { tag, method, header, body } = self.coming.take().expect("looked at a moment ago");
        let message = Message {
            exchange: method.exchange.to_string(),
            routing_key: method.routing_key.to_string(),
            properties: header.expect("looked at a moment ago").properties,
            body,
        };
        self.waiting.insert(tag);
        {
            let mut book = self.shared.book();
            let place = book.publishes.len();
            book.places.insert((self.number, tag), place);
            *book.received.entry(message.message_id()).or_default() += 1;
            book.publishes.push(Publish { message, answer: None, returned: false });
        }
        if self.ask(&Event::Published(tag)) == Then::Usual {
            self.ack(tag, false);
        }
    }

    /// Does something to the publish under a tag.
    fn at<T>(&self, tag: u64, act: impl FnOnce(&mut Publish) -> T) -> T {
        let mut book = self.shared.book();
        let place = *book.places.get(&(self.number, tag)).expect("a tag of this session");
        act(&mut book.publishes[place])
    }

    /// The tags that have no answer yet, in order.
    pub(crate) fn waiting(&self) -> Vec<u64> {
        self.waiting.iter().copied().collect()
    }

    /// The `message_id` of a publish.
    pub(crate) fn message_id(&self, tag: u64) -> String {
        self.at(tag, |publish| publish.message.message_id())
    }

    /// The body of a publish.
    pub(crate) fn body(&self, tag: u64) -> String {
        self.at(tag, |publish| String::from_utf8_lossy(&publish.message.body).into_owned())
    }

    /// How often the message of a publish was received so far, this time included.
    pub(crate) fn times(&self, tag: u64) -> usize {
        let id = self.message_id(tag);
        self.shared.book().received[&id]
    }

    fn answer(&mut self, tag: u64, multiple: bool, answer: Answer) {
        let first = if multiple { 0 } else { tag };
        let meant: Vec<u64> = self.waiting.range(first..=tag).copied().collect();
        for tag in meant {
            self.waiting.remove(&tag);
            self.at(tag, |publish| publish.answer = Some(answer));
        }
    }

    /// Confirms one publish, or all up to it.
    pub(crate) fn ack(&mut self, tag: u64, multiple: bool) {
        self.answer(tag, multiple, Answer::Ack);
        let ack = basic::Ack { delivery_tag: tag, multiple };
        self.method(self.channel, AMQPClass::Basic(basic::AMQPMethod::Ack(ack)));
    }

    /// Refuses one publish, or all up to it.
    pub(crate) fn nack(&mut self, tag: u64, multiple: bool) {
        self.answer(tag, multiple, Answer::Nack);
        let nack = basic::Nack { delivery_tag: tag, multiple, requeue: false };
        self.method(self.channel, AMQPClass::Basic(basic::AMQPMethod::Nack(nack)));
    }

    /// Returns a publish as unroutable. Confirms nothing.
    pub(crate) fn return_message(&mut self, tag: u64) {
        let frames = self.frames_of_return(tag);
        self.at(tag, |publish| publish.returned = true);
        for frame in frames {
            self.send(&frame);
        }
    }

    /// Begins to return a publish and leaves it at the method and the header.
    pub(crate) fn begin_return(&mut self, tag: u64) {
        for frame in &self.frames_of_return(tag)[..2] {
            self.send(frame);
        }
    }

    fn frames_of_return(&self, tag: u64) -> [AMQPFrame; 3] {
        let id = self.channel;
        self.at(tag, |publish| {
            let message = &publish.message;
            let returned = basic::Return {
                reply_code: 312,
                reply_text: "NO_ROUTE".into(),
                exchange: message.exchange.as_str().into(),
                routing_key: message.routing_key.as_str().into(),
            };
            let header = AMQPContentHeader {
                class_id: 60,
                body_size: message.body.len() as u64,
                properties: message.properties.clone(),
            };
            [
                AMQPFrame::Method(id, AMQPClass::Basic(basic::AMQPMethod::Return(returned))),
                AMQPFrame::Header(id, header),
                AMQPFrame::Body(id, message.body.clone()),
            ]
        })
    }

    /// Proposes limits; 0 is none.
    pub(crate) fn tune(&mut self, frame_max: u32, heartbeat: u16) {
        let tune = connection::Tune { channel_max: 2047, frame_max, heartbeat };
        self.method(0, AMQPClass::Connection(connection::AMQPMethod::Tune(tune)));
    }

    /// Says that it blocks publishing, or has ceased to.
    pub(crate) fn block(&mut self, blocked: bool) {
        use connection::AMQPMethod as Method;
        let method = if blocked {
            Method::Blocked(connection::Blocked { reason: "low on memory".into() })
        } else {
            Method::Unblocked(connection::Unblocked {})
        };
        self.method(0, AMQPClass::Connection(method));
    }

    /// Asks for no more publishes on the channel.
    pub(crate) fn stop_flow(&mut self) {
        let flow = channel::AMQPMethod::Flow(channel::Flow { active: false });
        self.method(self.channel, AMQPClass::Channel(flow));
    }

    /// Closes the channel; what the client still sends on it is ignored.
    pub(crate) fn close_channel(&mut self, reply_code: u16) {
        let close = channel::Close { reply_code, reply_text: "rogue".into(), class_id: 60, method_id: 40 };
        self.channel_closing = true;
        self.coming = None;
        self.method(self.channel, AMQPClass::Channel(channel::AMQPMethod::Close(close)));
    }

    /// Closes the connection and waits for the answer.
    pub(crate) fn close_connection(&mut self, reply_code: u16) {
        let close = connection::Close { reply_code, reply_text: "rogue".into(), class_id: 0, method_id: 0 };
        // Whatever comes before close-ok is ignored, the rest of a publish too.
        self.channel_closing = true;
        self.coming = None;
        self.method(0, AMQPClass::Connection(connection::AMQPMethod::Close(close)));
    }

    /// Closes the socket, after what was said before.
    pub(crate) fn finish(&mut self) {
        self.end = Some(End::Fin);
    }

    /// Resets the socket.
    pub(crate) fn reset(&mut self) {
        self.end = Some(End::Reset);
    }

    /// From now on nothing is read and nothing is said; the socket stays.
    pub(crate) fn be_silent(&mut self) {
        self.silent = true;
    }

    /// Says any bytes.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// The channel that publishes.
    pub(crate) fn channel(&self) -> u16 {
        self.channel
    }

    fn method(&mut self, channel: u16, method: AMQPClass) {
        self.send(&AMQPFrame::Method(channel, method));
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, frame: &AMQPFrame) {
        let written = gen_frame(frame)(WriteContext::from(Vec::new())).expect("a Vec takes every frame");
        self.out.extend(written.into_inner().0);
    }
}
