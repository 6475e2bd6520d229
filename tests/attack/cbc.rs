//! What an attacker can build from genuine ciphertexts without the key. CBC has no MAC, and the platform prescribes
//! it (platform.md#encryption).
//!
//! Everything follows from two properties of CBC. A change in ciphertext block *i* makes block *i* of the plaintext
//! random and flips the same bits of block *i* + 1. A change in the IV flips the same bits of the first block and
//! makes nothing random. So:
//!
//! * **With a single callback**, an attacker can rewrite its first 16 bytes through the IV. With any earlier block as
//!   IV, he can drop everything before a block and rewrite that block. The platform's callbacks begin with
//!   `{"action_type":"`, which is 16 bytes: the member can be renamed or dropped, and then the callback is no
//!   decision. If another member came first, the attacker would control its first characters: the operator, the task.
//!   He can also put an action's word in front if the context happens to end in one on a block boundary.
//! * **Single flipped bits** break the JSON, or change text that decides nothing.
//! * **With hundreds of callbacks under one key**, he can join the head of one to the tail of another where both are
//!   inside a text. One block in between is random, and is valid text once in some 300 000 times. He computes offline
//!   which joints fit, if he can guess the plaintexts; otherwise he has to try, and each try is a refusal that is
//!   counted. The result is accepted: the action of one approver with name and task of another.
//! * **The answers** to forgeries that keep the token reveal whether they still parse. From these he learns unknown
//!   characters, with up to 256 requests each. He learns neither key nor token that way.
//!
//! All of this requires a genuine ciphertext, so the operator must ensure TLS up to the service, without anybody in
//! between. A signed context (`format = "jwt"`) with `operators`, `actions` and `on_unresolved = "refuse"` removes
//! the gain from joints and dropped heads; so does a separate key and endpoint for each definition, and rotation.

use crate::{
    support::{App, Callback, Config, Endpoint, KEY, NOWHERE, Program, TOKEN},
    wire::{BLOCK, Blocks, report, strangers_answer, the_strangers_answer, xor},
};
use countersign::{
    callback::{
        self, CredentialSettings, Credentials, OpenError, Verified,
        cipher::{self, Key},
    },
    secret::Secret,
};
use std::collections::BTreeMap;

fn credentials() -> Credentials {
    Credentials::new(&[CredentialSettings {
        action_callback_token: Secret::new(TOKEN),
        action_callback_key: Some(Secret::new(KEY)),
    }])
}

/// The ciphertext of a callback, with the same IV in every run.
fn captured(callback: &Callback, number: u32) -> Blocks {
    let mut iv = [0x5a; BLOCK];
    iv[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
    Blocks::captured(&cipher::encrypt(&Key::derive(&Secret::new(KEY)), iv, &callback.plain()))
}

/// The blocks of the plaintext, as guessed by the attacker, who knows the form and often the values.
fn guessed(callback: &Callback) -> Vec<[u8; BLOCK]> {
    let mut plain = callback.plain();
    let padding = BLOCK - plain.len() % BLOCK;
    plain.resize(plain.len() + padding, u8::try_from(padding).expect("at most 16"));
    Blocks::of_bytes(&plain).0
}

/// Drops everything before block `at` of the plaintext, and replaces the content of that block.
fn rewrite_head(captured: &Blocks, plain: &[[u8; BLOCK]], at: usize, head: &[u8]) -> Blocks {
    let head: [u8; BLOCK] = head.try_into().expect("as long as a block");
    let iv = xor(captured.0[at], xor(plain[at], head));
    let mut blocks = vec![iv];
    blocks.extend_from_slice(&captured.0[at + 1..]);
    Blocks(blocks)
}

/// A list operation with all members of the documentation's example, in its order.
fn documented() -> Callback {
    Callback::list("erp:PO-77", "erp:PO-77:n2:zhang3")
        .context(r#"{"k":"v1"}"#)
        .without("token")
        .with("reason", "the amount differs from what was agreed in the second offer, see there")
        .with("token", TOKEN)
        .raw(
            "attachments",
            r#"[{"file_type":"ATTACHMENTS","file_size":2048,"file_name":"quote.pdf","url":"https://cdn.example.invalid/q.pdf"}]"#,
        )
}

/// The members that must not change: who decided, what, and about which task.
fn decision(verified: &Verified) -> [Option<String>; 8] {
    let text = |text: &Option<String>| text.clone();
    [
        text(&verified.action_type),
        text(&verified.user_id),
        text(&verified.approval_code),
        text(&verified.instance_id),
        text(&verified.task_id),
        text(&verified.id),
        text(&verified.action_context),
        verified.message_id.map(|id| id.to_string()),
    ]
}

/// Flips every bit of the ciphertext, including the IV's, under four IVs.
#[test]
fn no_flipped_bit_changes_a_decision() {
    let credentials = credentials();
    let plain = documented();
    let genuine = callback::open(&credentials, &captured(&plain, 0).body()).expect("genuine");
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for number in 0..4 {
        let whole = captured(&plain, number).bytes();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let outcome = match callback::open(&credentials, &Blocks::of_bytes(&flipped).body()) {
                Err(OpenError::Unauthenticated { .. }) => "unauthenticated",
                Err(OpenError::Malformed { .. }) => "malformed",
                Ok(verified) if verified.action_type.is_none() => {
                    assert_eq!(decision(&verified)[1..], decision(&genuine)[1..], "bit {bit}");
                    "opened, but without an action (its name was changed by the IV)"
                }
                Ok(verified) => {
                    assert_eq!(decision(&verified), decision(&genuine), "bit {bit} under IV {number}");
                    "opened with the same decision (other reason or attachments)"
                }
            };
            *outcomes.entry(outcome).or_default() += 1;
        }
    }
    report(&format!("bit flips of a callback of {} bytes: {outcomes:?}", plain.plain().len()));
    assert!(outcomes["unauthenticated"] > outcomes.values().sum::<usize>() * 9 / 10, "{outcomes:?}");
}

/// The same over the wire: a flip that does not authenticate gets the stranger's answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_answered_as_a_stranger_wherever_it_stands() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let wanted = the_strangers_answer(&app).await;
    let whole = captured(&documented(), 1).bytes();
    let mut posts = tokio::task::JoinSet::new();
    // After the first block, either the JSON or the token breaks; test one bit of every byte.
    for at in BLOCK..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        let (client, url) = (app.client(), app.callback_url("purchase"));
        let body = Blocks::of_bytes(&flipped).body();
        posts.spawn(async move { crate::support::post(&client, &url, body).await.expect("an answer") });
    }
    for answer in posts.join_all().await {
        assert_eq!((answer.status, &answer.body), (wanted.status, &wanted.body));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_iv_alone_changes_nothing_that_decides_as_the_platform_orders_the_members() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let plain = documented();
    let (genuine, blocks) = (captured(&plain, 2), guessed(&plain));
    assert_eq!(&blocks[0], b"{\"action_type\":\"", "the value begins in the next block");
    let heads: [&[u8; BLOCK]; 7] = [
        b"{\"reason\"     :\"",
        b"{\"user_id\"    :\"",
        b"{\"id\"         :\"",
        b"{\"token\"      :\"",
        b"{\"nothing_at\" :\"",
        b"{\"\":1,\"action\":\"",
        b"{ \"ction_type\":\"",
    ];
    for head in heads {
        let answer = app.post("purchase", rewrite_head(&genuine, &blocks, 0, head).body()).await;
        assert_ne!(answer.status, 200, "{}: {}", String::from_utf8_lossy(head), answer.text());
    }
    // Dropping the head does not help: it contains the action.
    for at in 1..blocks.len() - 1 {
        for head in
            [b"{\"a\":\"          ", b"{\"action_type\":\"", b"{              \"", b"{\"user_id\":\"evil"]
        {
            let answer = app.post("purchase", rewrite_head(&genuine, &blocks, at, head).body()).await;
            assert_ne!(answer.status, 200, "block {at} as {}", String::from_utf8_lossy(head));
        }
    }
    assert_eq!(app.post("purchase", genuine.body()).await.status, 200, "the genuine one is still good");
}

/// The situation if the platform put another member first. It proves a limit of the cipher and is not a requirement.
#[tokio::test(flavor = "multi_thread")]
async fn were_another_member_first_the_iv_would_change_it() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let action_last = |name: &str| {
        documented().without("action_type").without(name).with("action_type", "APPROVE").without("token")
    };
    for (name, genuine_value, changed_value) in [("user_id", "zhang3", "wang53"), ("task_id", "t-1", "t-2")] {
        let rest = action_last(name).with("token", TOKEN).plain();
        let head = format!("{{\"{name}\":\"{genuine_value}\",");
        let plain = [head.as_bytes(), &rest[1..]].concat();
        let sealed = Blocks::captured(&crate::support::seal(KEY, &plain));
        let mut changed = plain[..BLOCK].to_vec();
        let at = format!("{{\"{name}\":\"").len();
        let count = changed_value.len().min(BLOCK - at);
        changed[at..at + count].copy_from_slice(&changed_value.as_bytes()[..count]);
        let forged = rewrite_head(&sealed, &Blocks::of_bytes(&plain[..BLOCK]).0, 0, &changed);
        let id = app.post("purchase", forged.body()).await.command_id();
        let command = app.get(&format!("/api/v1/commands/{id}")).await.text();
        assert!(command.contains(&changed_value[..count]), "{name}: {command}");
    }
}

/// Drops the head and writes the action in its place. This is possible where a text ends in an action's word on a
/// block boundary; those who write contexts can avoid that.
#[tokio::test(flavor = "multi_thread")]
async fn a_context_that_ends_in_an_action_on_a_block_boundary_can_become_one() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    // `{"action_type":"APPROVE","action_context":"` is 43 bytes: five more make three blocks.
    let plain = documented().context("12345REJECT");
    let (genuine, blocks) = (captured(&plain, 3), guessed(&plain));
    assert!(blocks[3].starts_with(b"REJECT\",\"user_id"));
    let forged = rewrite_head(&genuine, &blocks, 2, b"{\"action_type\":\"");
    let id = app.post("purchase", forged.body()).await.command_id();
    let command = app.get(&format!("/api/v1/commands/{id}")).await.json();
    let told = command.to_string();
    assert!(told.contains("REJECT") && !told.contains("APPROVE"), "{told}");
}

/// Valid characters without quotes, backslashes or control characters.
fn is_text(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte >= 0x20 && *byte != b'"' && *byte != b'\\')
        && std::str::from_utf8(block).is_ok()
}

/// The head of one callback and the tail of another, with one random block in between that happens to be text.
struct Joint {
    blocks: Blocks,
    tail: usize,
}

/// All joints of a head with a tail inside their contexts, computed with XOR only: no key, and no request.
fn joints(
    heads: &[(Callback, Blocks)],
    tails: &[(Callback, Blocks)],
    inside: std::ops::Range<usize>,
) -> (Vec<Joint>, u64) {
    let mut tried = 0;
    let mut found = Vec::new();
    for (tail, (callback, tail_blocks)) in tails.iter().enumerate() {
        let plain = guessed(callback);
        for at in inside.clone() {
            let decrypted = xor(plain[at], tail_blocks.0[at]);
            for (_, head_blocks) in heads {
                for cut in inside.clone() {
                    tried += 1;
                    if is_text(&xor(decrypted, head_blocks.0[cut])) {
                        let mut blocks = head_blocks.0[..=cut].to_vec();
                        blocks.extend_from_slice(&tail_blocks.0[at + 1..]);
                        found.push(Joint { blocks: Blocks(blocks), tail });
                    }
                }
            }
        }
    }
    (found, tried)
}

const CONTEXT_BYTES: usize = 400;

fn rejects_and_approvals(context: impl Fn(usize) -> String) -> [Vec<(Callback, Blocks)>; 2] {
    ["REJECT", "APPROVE"].map(|action| {
        (0..100)
            .map(|number| {
                let callback = Callback::list(&format!("instance-{number}"), &format!("task-{number}"))
                    .operator(&format!("operator-{number}"))
                    .context(&context(number))
                    .action(action);
                let sealed =
                    captured(&callback, u32::try_from(number).expect("small") + 1000 * action.len() as u32);
                (callback, sealed)
            })
            .collect()
    })
}

/// The forgery that CBC without a MAC permits: an approval of one task becomes a rejection. It proves a limit, which
/// is why SECURITY.md requires a signed context.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_captured_callbacks_make_a_forged_one_where_the_context_is_not_signed() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let [rejects, approvals] = rejects_and_approvals(|number| format!("{number:0CONTEXT_BYTES$}"));
    // Blocks 0 to 2 of the plaintext precede the context.
    let (found, tried) = joints(&rejects, &approvals, 4..(CONTEXT_BYTES / BLOCK));
    report(&format!(
        "joints of {} captured callbacks: {tried} computed, {} are text, one in {:.0}",
        rejects.len() + approvals.len(),
        found.len(),
        tried as f64 / found.len() as f64
    ));
    let joint = found.first().expect("thirteen are to be expected");
    let id = app.post("purchase", joint.blocks.body()).await.command_id();
    let command = app.get(&format!("/api/v1/commands/{id}")).await.json().to_string();
    for told in ["REJECT", &format!("operator-{}", joint.tail), &format!("task-{}", joint.tail)] {
        assert!(command.contains(told), "{told}: {command}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_joint_of_captured_callbacks_passes_where_the_context_is_signed() {
    const SECRET: &str = "fake-jwt-secret-of-thirty-two-bytes-and-more";
    let endpoint = Endpoint::encrypted("signed")
        .set("on_conflict", "\"publish\"")
        .context("format", "\"jwt\"")
        .context("on_unresolved", "\"refuse\"")
        .context("jwt", &format!("{{ keys = [ {{ kid = \"k1\", secret = \"{SECRET}\" }} ] }}"));
    let app = App::with(Config::bare(NOWHERE).endpoint(endpoint)).await;
    // Issued by the program itself, one token for all captured callbacks: they differ after the context.
    let claims = r#"{"instance_id":"instance-0","task_id":"task-0","operators":["operator-0"],"business_key":"a long one, so that there are many blocks inside the context, as there are where a name and an amount are in it"}"#;
    let minted = Program::new(["context", "sign", "--endpoint", "signed", "--expires-in", "1h"])
        .config(app.file())
        .stdin(claims)
        .run()
        .await
        .ended_with(0)
        .stdout;
    let token = minted.trim().to_owned();
    let [rejects, approvals] = rejects_and_approvals(|_| token.clone());
    assert_eq!(app.post("signed", approvals[0].1.body()).await.status, 200, "genuine");
    let (found, tried) = joints(&rejects, &approvals, 4..(token.len() / BLOCK));
    assert!(!found.is_empty(), "none of {tried} to try");
    for joint in found {
        // It opens and has the right token; only the signature is wrong.
        assert_eq!(app.post("signed", joint.blocks.body()).await.reason(), "context_invalid");
    }
}

/// Exchanges every pair of blocks of two callbacks, and tries a few classics: none opens as another decision.
#[test]
fn exchanged_blocks_break_the_callback() {
    let credentials = credentials();
    let (one, other) = (documented(), documented().action("REJECT").operator("li4"));
    let (a, b) = (captured(&one, 5), captured(&other, 6));
    let genuine = callback::open(&credentials, &a.body()).expect("genuine");
    let mut opened = 0;
    let mut check = |blocks: Vec<[u8; BLOCK]>| {
        if let Ok(verified) = callback::open(&credentials, &Blocks(blocks).body()) {
            assert_eq!(decision(&verified), decision(&genuine));
            opened += 1;
        }
    };
    for at in 1..a.0.len() {
        for from in 1..b.0.len() {
            let mut blocks = a.0.clone();
            blocks[at] = b.0[from];
            check(blocks);
            // Head of one, tail of the other. Nothing in between is secret, only a random block.
            check([&a.0[..at], &b.0[from..]].concat());
        }
    }
    // C ‖ 0 ‖ C reveals the key where the key is the IV. Here it reveals a random block, which is public anyway.
    check(vec![a.0[1], [0; BLOCK], a.0[1]]);
    check(vec![[0; BLOCK], a.0[1], [0; BLOCK], a.0[1]]);
    assert_eq!(opened, 0);
}

/// Uses the answers as an oracle about a callback's content, with a captured callback and many requests.
#[test]
fn a_character_that_the_attacker_does_not_know_is_found_by_asking_whether_forgeries_still_parse() {
    let credentials = credentials();
    let plain = documented().context("xxxx").operator("secret-name");
    let (genuine, mut blocks) = (captured(&plain, 7), guessed(&plain));
    let at = blocks.iter().position(|block| block.ends_with(b",\"user_id\":\"secr")).expect("by the length");
    // He knows all but the last character of the block.
    let unknown = std::mem::take(&mut blocks[at][BLOCK - 1]);
    let authenticates = |delta: u8| {
        let mut head = *b"{\"a\":\"        .\0";
        head[BLOCK - 1] = delta;
        let forged = rewrite_head(&genuine, &blocks, at, &head);
        !matches!(callback::open(&credentials, &forged.body()), Err(OpenError::Unauthenticated { .. }))
    };
    let seen: Vec<bool> = (0..=255).map(authenticates).collect();
    // With this byte in a text, followed by an `e`.
    let parses = |byte: u8| (0x20..0x80).contains(&byte) && byte != b'"' && byte != b'\\';
    let candidates: Vec<u8> = (0..=255_u8)
        .filter(|byte| (0..=255_u8).all(|delta| parses(byte ^ delta) == seen[usize::from(delta)]))
        .collect();
    assert_eq!(candidates, [unknown]);
}

/// Without the token nothing is revealed: the same requests about a callback with another token.
#[tokio::test(flavor = "multi_thread")]
async fn forgeries_of_a_callback_without_the_token_are_a_strangers_whether_or_not_they_parse() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let wanted = the_strangers_answer(&app).await;
    let plain = documented().token("fake-token-of-another-endpoint");
    let (genuine, blocks) = (captured(&plain, 8), guessed(&plain));
    for last in [b'x', b'"', b'\\', 0, 0x80] {
        let mut head = *b"{\"action_type\":\"";
        head[BLOCK - 1] = last;
        let forged = rewrite_head(&genuine, &blocks, 0, &head);
        assert_eq!(strangers_answer(&app, "/callbacks/purchase", &forged.body()).await, wanted);
    }
}
