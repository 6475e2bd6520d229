//! Logins to the pages: opaque sessions that only this process knows, and a limit of attempts.
//!
//! A session ends after [`IDLE`] without a request, after [`LONGEST`], with its logout, and as soon as the token that
//! it was opened with is not in force any more. The cookie is kept as its hash: what can read this memory or time a
//! look-up learns nothing that opens a page.

use std::{
    collections::HashMap,
    fmt::Write,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use super::access::{Holder, Tokens};

/// A session ends this long after its last request.
const IDLE: Duration = Duration::from_secs(30 * 60);

/// A session ends this long after its login.
const LONGEST: Duration = Duration::from_secs(12 * 3600);

/// Sessions of all people. One more ends the one that was used longest ago.
const MOST: usize = 1000;

/// Wrong tokens from one peer within [`ATTEMPTS_WITHIN`].
const ATTEMPTS: u32 = 10;

const ATTEMPTS_WITHIN: Duration = Duration::from_secs(60);

/// Peers whose attempts are counted. More than that at a time is an attack, and then nobody may try.
const MOST_PEERS: usize = 10_000;

type Hash = [u8; 32];

/// Somebody who has logged in.
#[derive(Debug)]
struct Login {
    holder: Holder,
    /// Of the token.
    token: Hash,
    began: Instant,
    used: Instant,
}

impl Login {
    fn is_alive(&self, tokens: &Tokens, now: Instant) -> bool {
        now.duration_since(self.used) < IDLE
            && now.duration_since(self.began) < LONGEST
            && tokens.keep(&self.holder, |token| Hash::from(Sha256::digest(token.expose())) == self.token)
    }
}

/// All sessions, and who tried in vain.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    all: Mutex<HashMap<Hash, Login>>,
    attempts: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

impl Sessions {
    /// Opens a session for the holder of a token. Returns the value of its cookie.
    pub(super) fn open(&self, holder: Holder, token: &str, now: Instant) -> Result<String, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        let mut cookie = String::with_capacity(64);
        for byte in random {
            write!(cookie, "{byte:02x}").expect("writing to a String cannot fail");
        }
        let session = Login { holder, token: Sha256::digest(token).into(), began: now, used: now };
        let mut all = held(&self.all);
        all.retain(|_, session| now.duration_since(session.used) < IDLE);
        if all.len() >= MOST
            && let Some(oldest) =
                all.iter().min_by_key(|(_, session)| session.used).map(|(cookie, _)| *cookie)
        {
            all.remove(&oldest);
        }
        all.insert(Sha256::digest(&cookie).into(), session);
        Ok(cookie)
    }

    /// Who has this cookie. The session lives on from now.
    pub(super) fn used(&self, cookie: &str, tokens: &Tokens, now: Instant) -> Option<Holder> {
        let mut all = held(&self.all);
        let key: Hash = Sha256::digest(cookie).into();
        let session = all.get_mut(&key)?;
        if !session.is_alive(tokens, now) {
            all.remove(&key);
            return None;
        }
        session.used = now;
        Some(session.holder.clone())
    }

    /// Whether the session lives. Does not prolong it: a page that is left open is nobody's use of it.
    pub(super) fn lives(&self, cookie: &str, tokens: &Tokens, now: Instant) -> bool {
        let key: Hash = Sha256::digest(cookie).into();
        held(&self.all).get(&key).is_some_and(|session| session.is_alive(tokens, now))
    }

    /// Ends a session.
    pub(super) fn close(&self, cookie: &str) {
        let key: Hash = Sha256::digest(cookie).into();
        held(&self.all).remove(&key);
    }

    /// Whether a peer may try a token now.
    pub(super) fn may_try(&self, peer: IpAddr, now: Instant) -> bool {
        let mut attempts = held(&self.attempts);
        attempts.retain(|_, (since, _)| now.duration_since(*since) < ATTEMPTS_WITHIN);
        match attempts.get(&network(peer)) {
            Some((_, count)) => *count < ATTEMPTS,
            None => attempts.len() < MOST_PEERS,
        }
    }

    /// A peer tried in vain.
    pub(super) fn failed(&self, peer: IpAddr, now: Instant) {
        let mut attempts = held(&self.attempts);
        let (_, count) = attempts.entry(network(peer)).or_insert((now, 0));
        *count += 1;
    }
}

/// An IPv6 host has a whole /64.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let mut segments = address.segments();
            segments[4..].fill(0);
            IpAddr::V6(segments.into())
        }
        v4 => v4,
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        console::{
            Settings,
            access::{Access, NamedToken, Role},
        },
        secret::Secret,
    };

    fn settings(role: Role, token: &str) -> Settings {
        let tokens = vec![NamedToken { name: "chen".to_owned(), role, token: Secret::new(token) }];
        Settings { listen: ([127, 0, 0, 1], 9090).into(), token: None, tokens, public_url: None }
    }

    fn opened(access: &Access, sessions: &Sessions, now: Instant) -> String {
        let holder = access.tokens().holder("fake-token").unwrap().clone();
        sessions.open(holder, "fake-token", now).unwrap()
    }

    #[test]
    fn a_session_ends_after_half_an_hour_without_use_and_after_twelve_in_any_case() {
        let access = Access::new(&settings(Role::Read, "fake-token"));
        let (sessions, tokens, start) = (Sessions::default(), access.tokens(), Instant::now());
        let cookie = opened(&access, &sessions, start);
        assert_eq!(cookie.len(), 64);
        let minutes = |minutes: u64| start + Duration::from_secs(60 * minutes);
        assert!(sessions.used(&cookie, &tokens, minutes(29)).is_some());
        assert!(sessions.lives(&cookie, &tokens, minutes(58)), "looking at it does not end it");
        assert!(!sessions.lives(&cookie, &tokens, minutes(59)), "and does not prolong it");
        for at in (30..12 * 60).step_by(29) {
            let alive = sessions.used(&cookie, &tokens, minutes(at)).is_some();
            assert!(alive, "{at}");
        }
        assert!(sessions.used(&cookie, &tokens, minutes(12 * 60)).is_none());
        assert!(sessions.used("", &tokens, start).is_none());
    }

    #[test]
    fn a_session_ends_with_its_token_its_role_and_its_logout() {
        let access = Access::new(&settings(Role::Read, "fake-token"));
        let (sessions, now) = (Sessions::default(), Instant::now());
        for (role, token) in [(Role::Read, "fake-other"), (Role::Operate, "fake-token")] {
            let cookie = opened(&access, &sessions, now);
            assert!(access.replace(&settings(Role::Read, "fake-token")));
            assert!(sessions.lives(&cookie, &access.tokens(), now), "a reload of the same changes nothing");
            assert!(access.replace(&settings(role, token)));
            assert!(!sessions.lives(&cookie, &access.tokens(), now), "{role:?} {token}");
            assert!(sessions.used(&cookie, &access.tokens(), now).is_none());
            assert!(access.replace(&settings(Role::Read, "fake-token")));
            assert!(sessions.used(&cookie, &access.tokens(), now).is_none(), "it does not come back");
        }
        let cookie = opened(&access, &sessions, now);
        sessions.close(&cookie);
        assert!(sessions.used(&cookie, &access.tokens(), now).is_none());
    }

    #[test]
    fn a_peer_may_be_wrong_ten_times_a_minute() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let peer: IpAddr = "2001:db8::1".parse().unwrap();
        for _ in 0..ATTEMPTS {
            assert!(sessions.may_try(peer, now));
            sessions.failed(peer, now);
        }
        assert!(!sessions.may_try(peer, now));
        assert!(!sessions.may_try("2001:db8::2".parse().unwrap(), now), "the same /64");
        assert!(sessions.may_try("2001:db8:0:1::1".parse().unwrap(), now));
        assert!(sessions.may_try(peer, now + ATTEMPTS_WITHIN));
    }

    #[test]
    fn the_sessions_have_an_upper_bound() {
        let access = Access::new(&settings(Role::Read, "fake-token"));
        let (sessions, start) = (Sessions::default(), Instant::now());
        let first = opened(&access, &sessions, start);
        for later in 1..=MOST as u64 {
            opened(&access, &sessions, start + Duration::from_millis(later));
        }
        assert_eq!(held(&sessions.all).len(), MOST);
        assert!(!sessions.lives(&first, &access.tokens(), start));
    }
}
