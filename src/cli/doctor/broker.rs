//! The broker: connects to each URL like `serve`, then checks exchanges and queues without changing them.

use std::{fmt::Write, time::Duration};

use super::{Arguments, Results, policies, shell};
use crate::{
    amqp::{
        Error, Examined, Listening, Login, Settings, Topology, Trouble, examine, listen_in, login_of_url,
        names, refusing_policy,
    },
    cli::{exit::Failure, output::counted},
    config::Loaded,
    telemetry::{
        log::chain,
        metrics::topology::{Counts, Problem, Role},
    },
};

/// Timeout for immediate answers.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn look(
    results: &mut Results,
    arguments: &Arguments,
    loaded: &Loaded,
) -> Result<(), Failure> {
    let Ok(amqp) = loaded.amqp() else {
        return results.skipped("broker", "its configuration is wrong");
    };
    let settings = &amqp.broker;
    let Some((listening, login)) = connect(results, settings).await? else { return Ok(()) };
    let examined = tokio::time::timeout(PATIENCE, examine(&listening, settings)).await;
    listening.close("doctor has ended").await;
    let examined = match examined {
        Ok(Ok(examined)) => examined,
        Ok(Err(error)) => {
            return results.wrong("topology", format!("cannot be examined: {}", chain(&error)));
        }
        Err(_) => return results.wrong("topology", "the broker does not answer in time"),
    };
    if settings.queue.is_empty() {
        results.skipped("queue", "amqp.queue is empty: consumers bind their own")?;
    }
    let granting = grant(settings, &login);
    for one in &examined {
        object(results, settings, one, &granting)?;
    }
    let there = |one: &&Examined| one.counts.is_some();
    let queues: Vec<_> =
        examined.iter().filter(there).filter_map(|one| Some((one.name.clone(), one.role?))).collect();
    let asked = policies::Asked {
        login: &login,
        management_url: arguments.management_url.as_deref(),
        queues: &queues,
    };
    let refusing = policies::look(results, &asked).await?;
    for one in examined.iter().filter(|one| !refusing.contains(&one.name)) {
        overflow(results, one, &login.vhost)?;
    }
    Ok(())
}

/// Tries every URL: a failover is no time to learn that the second one is wrong.
async fn connect(results: &mut Results, settings: &Settings) -> Result<Option<(Listening, Login)>, Failure> {
    let mut connected = None;
    let mut failures = Vec::new();
    let several = settings.urls.len() > 1;
    for (place, url) in settings.urls.iter().enumerate() {
        let subject = if several { format!("broker {}", place + 1) } else { "broker".to_owned() };
        let Some(login) = login_of_url(url) else {
            failures.push((subject, "its URL cannot be read".to_owned()));
            continue;
        };
        let alone = Settings { urls: vec![url.clone()], ..settings.clone() };
        let connecting = tokio::time::timeout(
            settings.connect_timeout + Duration::from_secs(1),
            listen_in(&alone, "countersign doctor"),
        );
        match connecting.await {
            Ok(Ok(listening)) => {
                results.ok(&subject, format!("connected to {}", listening.broker()))?;
                match connected {
                    None => connected = Some((listening, login)),
                    Some(_) => listening.close("doctor has ended").await,
                }
            }
            Ok(Err(error)) => {
                let advice = refusal(&error, &login, settings).unwrap_or_else(|| {
                    "Check amqp.url, and that the broker runs and can be reached from here".to_owned()
                });
                // The broker's message may end with a full stop.
                failures.push((subject, format!("{}. {advice}", chain(&error).trim_end_matches('.'))));
            }
            Err(_) => failures
                .push((subject, "does not answer in time; check amqp.url and the firewall".to_owned())),
        }
    }
    for (subject, words) in failures {
        match connected {
            Some(_) => results.risky(&subject, format!("{words}. serve uses another URL meanwhile"))?,
            None => results.wrong(&subject, format!("{words}. Callbacks are still kept"))?,
        }
    }
    Ok(connected)
}

/// Advice if the broker answers but rejects the login.
fn refusal(error: &Error, login: &Login, settings: &Settings) -> Option<String> {
    let (code, words) = error.reply()?;
    let (user, vhost) = (shell(&login.user), shell(&login.vhost));
    match code {
        403 if login.user == "guest" && !crate::loopback::is_host(&login.host) => Some(
            "The user guest may connect from the broker's own machine only; make another: rabbitmqctl add_user NAME \
             (asks for the password)"
                .to_owned(),
        ),
        403 => Some(format!(
            "User or password is wrong: correct amqp.url; or, at the broker, rabbitmqctl change_password {user} (asks for the \
             password), and if there is no such user rabbitmqctl add_user {user}, then {}",
            grant(settings, login)
        )),
        530 if words.contains("limit") => Some(
            "A limit is reached: rabbitmqctl list_vhost_limits; rabbitmqctl set_vhost_limits raises it".to_owned(),
        ),
        530 if words.contains("not found") => Some(format!(
            "There is no such virtual host: correct the path of amqp.url ({vhost}); or make it: rabbitmqctl add_vhost {vhost} && {}",
            grant(settings, login)
        )),
        530 => Some(format!("The user may not use this virtual host: {}", grant(settings, login))),
        _ => None,
    }
}

/// The command that grants the user exactly the permissions that `serve` needs.
fn grant(settings: &Settings, login: &Login) -> String {
    let mut pattern = "^(".to_owned();
    for (place, name) in names(settings).iter().enumerate() {
        let separator = if place == 0 { "" } else { "|" };
        write!(pattern, "{separator}{}", regex::escape(name)).expect("writing to a String cannot fail");
    }
    pattern.push_str(")$");
    let pattern = shell(&pattern);
    format!(
        "rabbitmqctl set_permissions -p {} {} {pattern} {pattern} {pattern}",
        shell(&login.vhost),
        shell(&login.user)
    )
}

const MAKE: &str =
    "serve makes it with topology = \"declare\"; or import what `countersign topology print` prints";

fn object(results: &mut Results, settings: &Settings, one: &Examined, granting: &str) -> Result<(), Failure> {
    let name = &one.name;
    let subject = match one.role {
        None => "exchange",
        Some(Role::Commands) => "queue",
        Some(Role::Outcomes) => "outcomes",
        Some(Role::Unrouted) => "bindings",
        Some(Role::Dead) => "dead letters",
    };
    let declares = settings.topology == Topology::Declare;
    if let Some(Trouble { problem, words, advice }) = &one.trouble {
        return match problem {
            Problem::Missing if one.needed => results.wrong(subject, format!("{name} is not there; {MAKE}")),
            Problem::Missing => results.risky(subject, format!("{name} is not there; {MAKE}")),
            Problem::NotPermitted => results
                .wrong(subject, format!("{name} may not be examined by this user: {words}. {granting}")),
            Problem::DeclaredOtherwise if !declares => results.risky(
                subject,
                format!("{name} is declared otherwise than serve would, and is used as it is: {words}"),
            ),
            Problem::DeclaredOtherwise => results.wrong(
                subject,
                format!("{name} is declared otherwise, so that nothing can be published: {words}. {advice}"),
            ),
            Problem::Refused => results.wrong(subject, format!("{name}: {words}. {advice}")),
        };
    }
    if !one.compared && declares {
        let words = format!("{name} may not be declared by this user, so that nothing can be published");
        return results.wrong(subject, format!("{words}; {granting}, or set amqp.topology to \"check\""));
    }
    let Some(Counts { messages, consumers }) = one.counts else { return results.ok(subject, name) };
    match one.role {
        Some(Role::Commands) if consumers == 0 => {
            let words = format!("{name} has {} and no worker", counted(messages.into(), "command"));
            results.risky(subject, format!("{words}; start one"))
        }
        Some(Role::Outcomes) if consumers == 0 => {
            let words = format!("{name} has {} and no consumer", counted(messages.into(), "outcome"));
            results.risky(subject, format!("{words}; is serve running, with this outcomes.queue?"))
        }
        Some(Role::Outcomes) => results.ok(subject, format!("{name}: {messages} waiting to be taken")),
        // AMQP cannot list bindings. If they are missing, commands end up here.
        Some(Role::Unrouted) if messages > 0 => {
            let words = format!("commands that found no queue, in {name}: {messages}");
            let (queue, exchange) = (&settings.queue, &settings.exchange);
            let then = if settings.collects { "start serve, which takes them" } else { "move them" };
            let advice = format!("bind {queue} to {exchange} with \"#\", then {then}");
            results.wrong(subject, format!("{words}; {advice}"))
        }
        Some(Role::Unrouted) => results.ok(subject, "no command was without a queue"),
        Some(Role::Dead) if messages > 0 => {
            // Reading them would count as a delivery, and a queue may limit deliveries.
            let words = format!("messages in {name}: {messages}; doctor does not touch them");
            let why = "The header x-death of each says why: rejected by a worker, delivery_limit (delivered too often), expired, \
                       or maxlen (the queue was full)";
            let advice = match settings.collects {
                true => "serve takes them into the ledger: is it running, and may its user read the queue?",
                false => "look at them, fix that, and move them back",
            };
            results.risky(subject, format!("{words}. {why}; {advice}"))
        }
        Some(Role::Dead) => results.ok(subject, "none"),
        _ => {
            let (consumers, commands) =
                (counted(consumers.into(), "consumer"), counted(messages.into(), "command"));
            results.ok(subject, format!("{name}: {consumers}, {commands}"))
        }
    }
}

/// A queue that would drop its oldest messages if its length were limited.
fn overflow(results: &mut Results, one: &Examined, vhost: &str) -> Result<(), Failure> {
    let Some(overflow) = &one.overflow else { return Ok(()) };
    let name = &one.name;
    let danger = "should a policy limit its length, confirmed messages would be dropped";
    let how = match overflow.as_str() {
        "" => "is not declared with x-overflow: reject-publish".to_owned(),
        other => format!("is declared with x-overflow: {other}"),
    };
    let words = format!(
        "{name} {how}; {danger}. A policy goes before that: add \"overflow\":\"reject-publish\" to the one that the queue has, or, \
         if it has none: {}",
        refusing_policy(vhost, name)
    );
    results.risky("overflow", words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn the_user_is_granted_what_serve_declares_and_the_line_can_be_pasted() {
        let url = Secret::new("amqp://o%27neill:fake-hush@mq.example/team%2Fprod");
        let login = login_of_url(&url).unwrap();
        let settings = Settings { queue: "orders".to_owned(), ..Settings::default() };
        let line = grant(&settings, &login);
        assert!(line.starts_with(r"rabbitmqctl set_permissions -p 'team/prod' 'o'\''neill' '^("), "{line}");
        assert!(line.contains(r"countersign\.dead") && line.contains("|orders"), "{line}");
        assert!(!line.contains("hush") && !format!("{login:?}").contains("hush"), "{line} {login:?}");
    }
}
