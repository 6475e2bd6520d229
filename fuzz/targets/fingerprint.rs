//! The fingerprint: the same for the same parts, and different for any others, however their texts are cut.

use countersign::command::{Fingerprint, id::FingerprintParts};

type Parts<'a> = (&'a str, [Option<&'a str>; 6], &'a str, &'a str);

fn parts<'a>((endpoint, optional, user_id, action_type): Parts<'a>) -> FingerprintParts<'a> {
    let [action_context, instance_id, task_id, id, message_id, round] = optional;
    FingerprintParts {
        endpoint,
        action_context,
        instance_id,
        task_id,
        id,
        message_id,
        round,
        user_id,
        action_type,
    }
}

/// What counts as the same: absent is empty.
fn meant<'a>((endpoint, optional, user_id, action_type): Parts<'a>) -> [&'a str; 9] {
    let [a, b, c, d, e, f] = optional.map(Option::unwrap_or_default);
    [endpoint, a, b, c, d, e, f, user_id, action_type]
}

pub(super) fn run(data: &[u8]) {
    let Some((one, other, which, cut)) = super::read::<(Parts<'_>, Parts<'_>, u8, u16)>(data) else { return };
    let of = |one| Fingerprint::of(&parts(one));
    assert_eq!(of(one) == of(other), meant(one) == meant(other), "{one:?} {other:?}");
    // The same text, cut elsewhere between two neighbours: the mistake that a missing length prefix makes.
    let mut moved = one;
    let at = usize::from(which % 5);
    if let (Some(left), Some(right)) = (one.1[at], one.1[at + 1]) {
        let joined = format!("{left}{right}");
        let mut cut = usize::from(cut) % (joined.len() + 1);
        while !joined.is_char_boundary(cut) {
            cut -= 1;
        }
        let (left, right) = joined.split_at(cut);
        (moved.1[at], moved.1[at + 1]) = (Some(left), Some(right));
        assert_eq!(of(one) == of(moved), meant(one) == meant(moved), "{one:?} {moved:?}");
    }
}
