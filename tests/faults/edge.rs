//! The network edge: slow, idle, many, split and ambiguous. Strangers may have it as they like; what they do must not
//! hold up anybody, never make two decisions of one request, and never lose one that was answered.

use crate::oracle::{Decision, Oracle};
use crate::support::{Answer, App, Config, Line, Vhost, Worker, eventually};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;

const PATH: &str = "/callbacks/purchase";

/// A whole request with this decision; `headers` are whole lines.
fn request(decision: &Decision, headers: &str) -> Vec<u8> {
    framed(headers, &decision.body())
}

fn framed(headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// Opens as many connections as asked for, which takes more descriptors than a shell usually gives.
fn take_descriptors(wanted: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let more = Rlimit { current: limit.maximum.map(|most| most.min(wanted)), maximum: limit.maximum };
        setrlimit(Resource::Nofile, more).expect("a soft limit may be raised to the hard one");
        assert!(
            more.current.is_none_or(|current| current >= wanted),
            "the hard limit is {:?}",
            limit.maximum
        );
    }
}

/// The memory that a process has resident.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the program runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line for VmRSS");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_senders_are_cut_off_and_hold_up_nobody() {
    const SLOW: usize = 150;
    let vhost = Vhost::new().await;
    let app = App::with(Config::new(&vhost).set("http", "body_read_timeout_ms", "1000")).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    let mut slow = JoinSet::new();
    for number in 0..2 * SLOW {
        let decision = Decision::new(&format!("slow-{number}"), number);
        let whole = request(&decision, "");
        let address = app.public();
        slow.spawn(async move {
            let mut line = Line::to(address).await;
            let head = whole.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
            // One half never ends its head, the other never its body; a byte now and then, until it is cut off.
            let (begin, drip) =
                if number % 2 == 0 { (0, &whole[..head - 1]) } else { (head, &whole[head..]) };
            if line.write(&whole[..begin]).await.is_err() {
                return (decision, None);
            }
            for byte in drip {
                if line.write(&[*byte]).await.is_err() {
                    break;
                }
                if let Ok(answer) = tokio::time::timeout(Duration::from_millis(200), line.answer()).await {
                    return (decision, answer);
                }
            }
            (decision, line.answer().await)
        });
    }
    let load = oracle.load(&app, 4);
    load.until_answered(200).await;
    let mut cut = BTreeMap::<String, usize>::new();
    while let Some(ended) = slow.join_next().await {
        let (decision, answer) = ended.expect("no panic");
        // A head that does not come is answered by the server itself, without a body.
        let word = match &answer {
            Some(answer) if answer.body.is_empty() => answer.status.to_string(),
            Some(answer) => answer.reason(),
            None => "closed".to_owned(),
        };
        assert!(answer.as_ref().is_none_or(|answer| answer.status != 200), "{decision:?}");
        *cut.entry(word).or_default() += 1;
        match answer {
            Some(answer) if !answer.body.is_empty() => oracle.note(decision, Some(&answer), true),
            _ => oracle.note_refused(decision),
        }
    }
    load.stop().await;
    assert_eq!(cut.get("too_slow"), Some(&SLOW), "{cut:?}");
    let figures = oracle.account(&app, &worker).await.check("slow heads and bodies");
    assert_eq!(figures.unknown, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_idle_connections_hold_up_nobody() {
    idle(1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long"]
async fn ten_thousand_idle_connections_hold_up_nobody() {
    idle(10_000).await;
}

/// A stranger's connection lasts seconds; these have decided something, and may stay.
async fn idle(count: usize) {
    take_descriptors(count as u64 + 500);
    let vhost = Vhost::new().await;
    // All of them are one peer here.
    let config = Config::new(&vhost).set("http", "max_connections_per_peer", &(2 * count).to_string());
    let app = App::with(config).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    let decide = async |line: &mut Line, number: usize, round: usize| {
        let decision = Decision::new(&format!("idle-{number}-{round}"), number);
        line.post(PATH, &decision.body()).await.expect("an open connection");
        let answer = line.answer().await;
        oracle.note(decision, answer.as_ref(), true);
        answer.expect("an answer").status
    };
    let mut lines = Vec::with_capacity(count);
    let mut silent = Vec::new();
    for number in 0..count {
        let mut line = Line::to(app.public()).await;
        assert_eq!(decide(&mut line, number, 0).await, 200, "connection {number}");
        lines.push(line);
        // And some that never say a word.
        if number % 10 == 0 {
            silent.push(Line::to(app.public()).await);
        }
    }
    let load = oracle.load(&app, 4);
    load.until_answered(200).await;
    load.stop().await;
    // Of the last thousand: the first may have been idle for longer than the server has patience.
    for (number, line) in lines.iter_mut().enumerate().skip(count - 1_000).step_by(97) {
        assert_eq!(decide(line, number, 1).await, 200, "connection {number} is still there");
    }
    let resident = resident_kib(app.pid());
    for line in silent {
        let said = String::from_utf8_lossy(&line.until_closed().await).into_owned();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    }
    drop(lines);
    let figures = oracle.account(&app, &worker).await.check(&format!("{count} idle connections"));
    assert_eq!(figures.unknown, 0);
    assert!(figures.answered > count);
    crate::say(&format!("{count} idle connections: the program has {} MiB resident", resident / 1024));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_cap_without_a_length_is_refused_whole_though_its_beginning_is_a_decision() {
    let vhost = Vhost::new().await;
    let app = App::with(Config::new(&vhost).set("http", "max_body_bytes", "4096")).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    oracle.keep(&app, 5).await;
    for number in 0..20 {
        let decision = Decision::new(&format!("long-{number}"), number);
        let mut line = Line::to(app.public()).await;
        let head = format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        // Blanks behind the JSON do not change what it says. The whole is never ended.
        let body = [chunk(&decision.body()), chunk(&[b' '; 4096])].concat();
        line.write(&[head.as_bytes(), &body].concat()).await.expect("an open connection");
        let answer = line.answer().await.expect("an answer before the end");
        assert_eq!((answer.status, answer.reason().as_str()), (413, "body_too_large"));
        oracle.note(decision, Some(&answer), true);
        assert!(line.until_closed().await.is_empty());
    }
    oracle.keep(&app, 5).await;
    let figures = oracle.account(&app, &worker).await.check("bodies over the cap, chunked");
    assert_eq!(figures.refused["body_too_large"], 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_callbacks_are_answered_in_order_however_they_are_cut() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    // In one segment, then in two cut at many places, then a crowd.
    let two: usize = request(&Decision::new("cut-0-0", 0), "").len() * 2;
    let cuts = [0].into_iter().chain((1..two).step_by(61));
    for (round, cut) in cuts.enumerate() {
        let count = if round == 0 { 16 } else { 2 };
        let decisions: Vec<_> =
            (0..count).map(|place| Decision::new(&format!("cut-{round}-{place}"), place)).collect();
        let bytes: Vec<u8> = decisions.iter().flat_map(|decision| request(decision, "")).collect();
        let mut line = Line::to(app.public()).await;
        let (first, rest) = bytes.split_at(cut.min(bytes.len()));
        line.write(first).await.expect("an open connection");
        tokio::task::yield_now().await;
        line.write(rest).await.expect("an open connection");
        for decision in decisions {
            let answer = line.answer().await.expect("an answer to each");
            assert_eq!(answer.status, 200, "cut at {cut}: {}", answer.text());
            // Whose answer it is shows in the ledger.
            let record = app.get(&format!("/api/v1/commands/{}", answer.command_id())).await.json();
            assert_eq!(record["command"]["task"]["task_id"], decision.task.as_str(), "cut at {cut}");
            oracle.note(decision, Some(&answer), true);
        }
    }
    let figures = oracle.account(&app, &worker).await.check("pipelining");
    assert_eq!((figures.unknown, figures.published_again), (0, 0));
}

/// What a request may do that is not clear about where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    /// Its own decision must be kept, and the one hidden in it not.
    DecideOnce,
    /// It is refused; nothing in it is heard.
    DecideNothing,
}

/// A request for one decision with another hidden in it, in ways in which a proxy and a server may differ about where
/// the first one ends.
fn ambiguous(own: &Decision, hidden: &Decision) -> Vec<(&'static str, May, Vec<u8>)> {
    use May::{DecideNothing, DecideOnce};
    let body = own.body();
    let inner = request(hidden, "");
    let length = body.len();
    let both = length + inner.len();
    let raw = |head: String, body: &[u8]| {
        [format!("POST {PATH} HTTP/1.1\r\nHost: x\r\n{head}\r\n").as_bytes(), body].concat()
    };
    let chunked = [chunk(&body), b"0\r\n\r\n".to_vec()].concat();
    let with_inner = |body: &[u8]| [body, &inner].concat();
    let te = |value: &str| raw(format!("Content-Length: {}\r\n{value}\r\n", chunked.len()), &chunked);
    let size = |line: &str| {
        let bytes = [line.as_bytes(), b"\r\n", body.as_slice(), b"\r\n0\r\n\r\n"].concat();
        raw("Transfer-Encoding: chunked\r\n".to_owned(), &bytes)
    };
    let hex = format!("{length:x}");
    vec![
        (
            "two lengths that differ, the first shorter",
            DecideNothing,
            raw(format!("Content-Length: {length}\r\nContent-Length: {both}\r\n"), &with_inner(&body)),
        ),
        (
            "two lengths that differ, the first longer",
            DecideNothing,
            raw(format!("Content-Length: {both}\r\nContent-Length: {length}\r\n"), &with_inner(&body)),
        ),
        (
            "a list of lengths",
            DecideNothing,
            raw(format!("Content-Length: {length}, {both}\r\n"), &with_inner(&body)),
        ),
        (
            "CL.TE: the length holds both, the chunks end before the second",
            DecideNothing,
            raw(
                format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", chunked.len() + inner.len()),
                &with_inner(&chunked),
            ),
        ),
        (
            "TE.CL: the chunks hold both, the length ends before the second",
            DecideNothing,
            raw(
                format!("Transfer-Encoding: chunked\r\nContent-Length: {}\r\n", hex.len() + 2),
                &[chunk(&with_inner(&body)), b"0\r\n\r\n".to_vec()].concat(),
            ),
        ),
        ("TE with a blank before the colon", DecideNothing, te("Transfer-Encoding : chunked")),
        ("TE after a folded line", DecideNothing, te("X: y\r\n Transfer-Encoding: chunked")),
        ("TE folded", DecideNothing, te("Transfer-Encoding:\r\n chunked")),
        ("TE that is not known", DecideNothing, te("Transfer-Encoding: xchunked")),
        ("TE where chunked is not last", DecideNothing, te("Transfer-Encoding: chunked, identity")),
        ("TE twice", DecideNothing, te("Transfer-Encoding: chunked\r\nTransfer-Encoding: cow")),
        ("TE with a tail", DecideNothing, te("Transfer-Encoding: chunked;x=1")),
        ("TE with a vertical tab", DecideNothing, te("Transfer-Encoding: \u{b}chunked")),
        ("TE in quotes", DecideNothing, te("Transfer-Encoding: \"chunked\"")),
        ("a name with a NUL", DecideNothing, te("Transfer-Encoding\0: chunked")),
        ("a value with a NUL", DecideNothing, te("X: a\0b")),
        ("a value with a bare CR", DecideNothing, te("X: a\rTransfer-Encoding: chunked")),
        ("a length with a sign", DecideNothing, raw(format!("Content-Length: +{length}\r\n"), &body)),
        ("a length below zero", DecideNothing, raw("Content-Length: -1\r\n".to_owned(), &body)),
        ("a length in hex", DecideNothing, raw(format!("Content-Length: 0x{length:x}\r\n"), &body)),
        (
            "a length beyond 64 bits",
            DecideNothing,
            raw(format!("Content-Length: 1844674407370955161{length}\r\n"), &body),
        ),
        ("a folded length", DecideNothing, raw(format!("Content-Length: {length}\r\n 0\r\n"), &body)),
        ("chunks with an extension", DecideOnce, size(&format!("{hex};name=value"))),
        ("a chunk size with a sign", DecideNothing, size(&format!("+{hex}"))),
        ("a chunk size as 0x", DecideNothing, size(&format!("0x{hex}"))),
        ("a chunk size beyond 64 bits", DecideNothing, size(&format!("1{}{hex}", "0".repeat(16)))),
        ("a chunk that ends elsewhere", DecideNothing, {
            let bytes = [format!("{:x}\r\n", length - 3).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
            raw("Transfer-Encoding: chunked\r\n".to_owned(), &bytes)
        }),
        (
            "chunks with LF only, and the second behind their end",
            DecideNothing,
            raw(
                "Transfer-Encoding: chunked\r\n".to_owned(),
                &with_inner(&[format!("{hex}\n").as_bytes(), &body, b"\n0\n\n"].concat()),
            ),
        ),
        (
            "an extension that holds the second",
            DecideNothing,
            raw(
                "Transfer-Encoding: chunked\r\n".to_owned(),
                &[format!("{hex};\n").as_bytes(), &body, b"\r\n0\r\n\r\n", &inner].concat(),
            ),
        ),
        ("a name with a blank", DecideNothing, te("X Y: z")),
        ("no name at all", DecideNothing, te(": z")),
        ("two hosts", DecideNothing, te("Host: y")),
        (
            "an upgrade, behind which the server takes all for the body",
            DecideNothing,
            raw(
                format!("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: {length}\r\n"),
                &with_inner(&body),
            ),
        ),
        (
            "Connection: Upgrade to nothing, as some proxies send it always",
            DecideOnce,
            raw(format!("Connection: Upgrade\r\nContent-Length: {length}\r\n"), &body),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_clear_about_its_end_never_makes_two_decisions_and_none_that_was_not_answered()
{
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    oracle.keep(&app, 3).await;
    let count = ambiguous(&Decision::new("x", 0), &Decision::new("y", 0)).len();
    let mut wrong = Vec::new();
    for number in 0..count {
        let own = Decision::new(&format!("own-{number}"), number);
        let hidden = Decision::new(&format!("hidden-{number}"), number);
        let (what, may, bytes) = ambiguous(&own, &hidden).swap_remove(number);
        let answers = exchange(&app, &bytes).await;
        let kept: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 200).collect();
        let there: Vec<String> = [&own, &hidden].into_iter().map(|decision| decision.task.clone()).collect();
        let mut in_ledger = Vec::new();
        for task in &there {
            let found = app.get(&format!("/api/v1/commands?task_id={task}")).await.json();
            in_ledger.push(found["commands"].as_array().expect("a list").len());
        }
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        let expected = if may == May::DecideOnce { [1, 0] } else { [0, 0] };
        if in_ledger != expected || kept.len() != expected[0] {
            wrong.push(format!("{what}: answered {statuses:?}, in the ledger {in_ledger:?}"));
        }
        match kept.first() {
            Some(answer) => oracle.note(own, Some(answer), true),
            None => oracle.note_refused(own),
        }
        oracle.note_refused(hidden);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    oracle.keep(&app, 3).await;
    let figures = oracle.account(&app, &worker).await.check("ambiguous requests");
    assert_eq!(figures.unknown, 0);
}

/// Writes these bytes on a connection of their own, and reads all that is answered until it is closed. Our side is
/// closed for writing, so that a server that waits for more of a body gives up.
async fn exchange(app: &App, bytes: &[u8]) -> Vec<Answer> {
    let mut line = Line::to(app.public()).await;
    // The other side may close before it has read all.
    drop(line.write(bytes).await);
    line.end().await;
    let mut answers = Vec::new();
    while let Some(answer) = line.answer().await {
        answers.push(answer);
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_but_clear_requests_are_heard() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    for (number, headers) in [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: multipart/form-data; boundary=x\r\n",
        "Content-Type: application/json\r\nContent-Type: text/xml\r\n",
        "Content-Type: nonsense\r\n",
        "Content-Encoding: gzip\r\n",
        "Expect: 100-continue\r\n",
        "Origin: https://evil.example\r\n",
        "X-Forwarded-For: 192.0.2.1, nonsense, \u{e9}\r\nForwarded: for=\"_x\"\r\n",
        "Cookie: a=b\r\nAuthorization: Bearer x\r\nRange: bytes=0-1\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let decision = Decision::new(&format!("odd-{number}"), number);
        let mut line = Line::to(app.public()).await;
        line.write(&request(&decision, headers)).await.expect("an open connection");
        let mut answer = line.answer().await.expect("an answer");
        if answer.status == 100 {
            answer = line.answer().await.expect("an answer after 100");
        }
        assert_eq!(answer.status, 200, "{headers}: {}", answer.text());
        oracle.note(decision, Some(&answer), true);
    }
    for method in ["GET", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let decision = Decision::new(&format!("method-{method}"), 0);
        let mut line = Line::to(app.public()).await;
        let bytes = String::from_utf8(request(&decision, "")).expect("ASCII");
        line.write(bytes.replacen("POST", method, 1).as_bytes()).await.expect("an open connection");
        let said = String::from_utf8_lossy(&line.until_closed().await).into_owned();
        assert!(said.starts_with("HTTP/1.1 405"), "{method}: {said}");
        oracle.note_refused(decision);
    }
    // A head beyond all bounds; others go on.
    let decision = Decision::new("huge", 0);
    let mut line = Line::to(app.public()).await;
    let huge = request(&decision, &format!("X: {}\r\n", "y".repeat(200 << 10)));
    drop(line.write(&huge).await);
    let said = String::from_utf8_lossy(&line.until_closed().await).into_owned();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "{said}");
    oracle.note_refused(decision);
    oracle.keep(&app, 3).await;
    let figures = oracle.account(&app, &worker).await.check("odd requests");
    assert_eq!((figures.unknown, figures.published_again), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_guesses_shuts_out_the_guesser_and_neither_the_endpoint_nor_the_log() {
    let vhost = Vhost::new().await;
    let config = Config::new(&vhost)
        .set("http", "trusted_proxies", "[\"127.0.0.1\"]")
        .set("http", "failure_budget_per_peer", "20")
        .set("http", "unauthenticated_floor_ms", "0");
    let app = App::with(config).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    let load = oracle.load(&app, 4);
    let mut guesses = JoinSet::new();
    for guesser in 0..4 {
        let address = app.public();
        guesses.spawn(async move {
            let mut counts = BTreeMap::<u16, usize>::new();
            for _ in 0..250 {
                let mut line = Line::to(address).await;
                let head = format!("X-Forwarded-For: 198.51.100.9, 192.0.2.{guesser}\r\n");
                line.write(&framed(&head, b"{\"encrypt\":\"AAAA\"}")).await.expect("an open connection");
                *counts.entry(line.answer().await.expect("an answer").status).or_default() += 1;
            }
            counts
        });
    }
    while let Some(counts) = guesses.join_next().await {
        let counts = counts.expect("no panic");
        assert_eq!(counts.values().sum::<usize>(), 250, "{counts:?}");
        // The window may end once while the machine is slow.
        assert!((20..=40).contains(&counts[&403]), "{counts:?}");
        assert!(counts[&429] >= 200, "{counts:?}");
    }
    load.until_answered(50).await;
    load.stop().await;
    let lines = app.log_lines();
    let told = lines.iter().filter(|line| line["outcome"] == "rate_limited").count();
    assert!((4..=16).contains(&told), "{told} lines for a flood of 1000");
    let figures = oracle.account(&app, &worker).await.check("a flood of guesses");
    assert!(figures.refused.is_empty(), "{:?}", figures.refused);
    eventually("the flood to be counted", async || {
        match app.metric("countersign_peers_limited_total{cause=\"failures\"}").await {
            Some(count) if count >= 800.0 => Ok(()),
            other => Err(other),
        }
    })
    .await;
}
