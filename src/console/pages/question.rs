//! What somebody asks on `/why`.

use std::net::IpAddr;

use crate::{
    command::{CommandId, Seq, id::CommandRef},
    time::{Timestamp, Zone, parse},
};

/// Digits of a number that can be the id of a card's message.
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 15..=20;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Question {
    pub(super) id: Option<CommandId>,
    /// A small number may be a place in the log.
    pub(super) seq: Option<Seq>,
    pub(super) card: Option<String>,
    pub(super) peer: Option<IpAddr>,
    pub(super) text: Option<String>,
    pub(super) at: Option<Timestamp>,
}

impl Question {
    pub(super) fn read(q: &str, now: Timestamp, zone: &Zone) -> Self {
        let mut question = Self::default();
        let words: Vec<&str> = q.split_whitespace().collect();
        // The longest run of words at either end that is a time.
        let mut rest: &[&str] = &words;
        for count in (1..=words.len()).rev() {
            let (tail, head) = (&words[words.len() - count..], &words[..count]);
            let read = |words: &[&str]| {
                let text = words.join(" ");
                let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
                if is_number { None } else { parse(&text, now, zone).ok() }
            };
            if let Some(at) = read(tail) {
                (question.at, rest) = (Some(at), &words[..words.len() - count]);
                break;
            }
            if let Some(at) = read(head) {
                (question.at, rest) = (Some(at), &words[count..]);
                break;
            }
        }
        let text = rest.join(" ");
        if text.is_empty() {
            return question;
        }
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        if is_number && CARD_DIGITS.contains(&text.len()) {
            question.card = Some(text);
        } else if let Ok(peer) = text.parse::<IpAddr>() {
            question.peer = Some(peer.to_canonical());
        } else {
            match CommandRef::parse(&text) {
                Some(CommandRef::Id(id)) => question.id = Some(id),
                Some(CommandRef::Seq(seq)) => (question.seq, question.text) = (Some(seq), Some(text)),
                None => question.text = Some(text),
            }
        }
        question
    }

    /// The question as text, with an absolute time.
    pub(super) fn absolute(&self, zone: &Zone) -> String {
        let parts = [
            self.id.map(|id| id.to_string()),
            self.card.clone(),
            self.peer.map(|peer| peer.to_string()),
            self.text.clone(),
            self.at.map(|at| zone.show(at)),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(q: &str) -> Question {
        let now = "2026-11-20T08:15:30Z".parse().unwrap();
        Question::read(q, now, &Zone::at_offset("+08:00").unwrap())
    }

    #[test]
    fn a_question_is_what_it_looks_like() {
        let at = |text: &str| Some(text.parse().unwrap());
        let id = "01a216f6-e462-7457-87f7-20bdc5398582";
        let text = |text: &str| Question { text: Some(text.to_owned()), ..Question::default() };
        assert_eq!(read(id), Question { id: CommandId::parse(id), ..Question::default() });
        let card = Question { card: Some("6963555866582613023".to_owned()), ..Question::default() };
        assert_eq!(read("6963555866582613023"), card);
        assert_eq!(read("4711"), Question { seq: Some(4711), ..text("4711") });
        for peer in ["203.0.113.9", "2001:db8::9", "::ffff:203.0.113.9"] {
            let wanted = peer.parse::<IpAddr>().unwrap().to_canonical();
            assert_eq!(read(peer), Question { peer: Some(wanted), ..Question::default() });
        }
        assert_eq!(read("zhang3"), text("zhang3"));
        assert_eq!(read("PO-77/n1"), text("PO-77/n1"));
        assert_eq!(read("采购 7"), text("采购 7"));
        assert_eq!(read("10:31"), Question { at: at("2026-11-20T02:31:00Z"), ..Question::default() });
        for both in
            ["zhang3 10:31", "10:31 zhang3", "zhang3 2026-11-20 10:31", " zhang3  2026-11-20T10:31:00+08:00 "]
        {
            assert_eq!(read(both), Question { at: at("2026-11-20T02:31:00Z"), ..text("zhang3") }, "{both}");
        }
        for yesterday in ["zhang3 昨天 10:31", "zhang3 yesterday 10:31", "昨天 10:31 zhang3"] {
            assert_eq!(read(yesterday), Question { at: at("2026-11-19T02:31:00Z"), ..text("zhang3") });
        }
        assert_eq!(read("zhang3 6:44pm").at, at("2026-11-20T10:44:00Z"));
        assert_eq!(read(""), Question::default());
    }

    #[test]
    fn an_absolute_question_reads_back() {
        let zone = Zone::at_offset("+08:00").unwrap();
        for q in ["zhang3 10:31", "10:31", "zhang3", "6963555866582613023", "203.0.113.9 yesterday"] {
            let absolute = read(q).absolute(&zone);
            assert_eq!(read(&absolute).absolute(&zone), absolute, "{q}");
        }
    }
}
