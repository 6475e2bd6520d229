//! The approval center: our clock against its clock, our app, and the definitions of each endpoint.

use std::{collections::BTreeMap, time::Duration};

use super::{Arguments, Results};
use crate::{
    center::client::{Center, Definition, Fault, UserIdType},
    cli::{
        Trust,
        center::check::{self, CheckResult},
        client,
        exit::Failure,
        url,
    },
    config::Loaded,
    intake::EndpointSettings,
    telemetry::log::chain,
    time::Timestamp,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Token contexts allow a minute by default, and the platform's times are compared with ours.
const MOST_OFF: u64 = 30;

/// Runs the checks and returns the `action_callback_url` of each endpoint's definition, if it has one.
pub(super) async fn look(
    results: &mut Results,
    arguments: &Arguments,
    loaded: &Loaded,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut urls = BTreeMap::new();
    let settings = match loaded.approval_center() {
        Ok(Some(settings)) => settings,
        Ok(None) => {
            results.skipped("approval center", "approval_center.app_id is not configured")?;
            return Ok(urls);
        }
        Err(_) => {
            results.skipped("approval center", "its configuration is wrong")?;
            return Ok(urls);
        }
    };
    clock(results, &settings.base_url).await?;
    let center = match Center::new(settings) {
        Ok(center) => center,
        Err(error) => {
            results.wrong("approval center", chain(&error))?;
            return Ok(urls);
        }
    };
    match center.token_info().await {
        Ok(token) => {
            let minutes = token.expires_in.as_secs() / 60;
            results.ok(
                "approval center",
                format!(
                    "{} accepts {}; its token expires in {minutes} min",
                    settings.base_url, settings.app_id
                ),
            )?;
        }
        Err(error) => {
            results.wrong("approval center", with_advice(&error))?;
            return Ok(urls);
        }
    }
    let Ok(endpoints) = loaded.endpoints() else {
        results.skipped("definitions", "the configuration of the endpoints is wrong")?;
        return Ok(urls);
    };
    let mut looked = 0;
    for endpoint in endpoints {
        let mut customs = Vec::new();
        let mut unknown = Vec::new();
        for code in &endpoint.approval_codes {
            looked += 1;
            match definition(results, &center, code).await? {
                Look::Found(definition) => {
                    judge(results, &center, arguments, endpoint, code, &definition)?;
                    customs.push(definition.approval_code.clone());
                    urls.extend(
                        definition.external.action_callback_url.map(|url| (endpoint.name.clone(), url)),
                    );
                }
                Look::Unknown => unknown.push(code),
                Look::Failed => {}
            }
        }
        for code in unknown.into_iter().filter(|code| !customs.contains(code)) {
            let words = "no definition has it as its real code; a custom code is allowed here, but only together with \
                         the real one, which creating the definition returned, can it be looked at";
            results.wrong(&format!("definition {code} of {}", endpoint.name), words)?;
        }
    }
    for code in &arguments.definition {
        looked += 1;
        match definition(results, &center, code).await? {
            Look::Found(definition) => {
                let url = definition.external.action_callback_url.clone().unwrap_or_default();
                let named =
                    endpoints.iter().find(|endpoint| url.ends_with(&format!("/callbacks/{}", endpoint.name)));
                match (named, endpoints) {
                    (Some(endpoint), _) | (None, [endpoint]) => {
                        judge(results, &center, arguments, endpoint, code, &definition)?;
                        urls.extend(
                            Some(url).filter(|url| !url.is_empty()).map(|url| (endpoint.name.clone(), url)),
                        );
                    }
                    _ => results.wrong(&format!("definition {code}"), "points at none of the endpoints")?,
                }
            }
            Look::Unknown => {
                results.wrong(
                    &format!("definition {code}"),
                    "no definition has it as its real code; the custom code cannot be used here",
                )?;
            }
            Look::Failed => {}
        }
    }
    if looked == 0 {
        results.skipped("definitions", "none is named in approval_codes; name one with --definition")?;
    }
    Ok(urls)
}

enum Look {
    Found(Box<Definition>),
    Unknown,
    /// Already reported.
    Failed,
}

async fn definition(results: &mut Results, center: &Center, code: &str) -> Result<Look, Failure> {
    match center.definition(code, &UserIdType::UserId).await {
        Ok(definition) => Ok(Look::Found(Box::new(definition))),
        Err(error) if error.fault() == Some(Fault::DefinitionUnknown) => Ok(Look::Unknown),
        Err(error) => {
            results.wrong(&format!("definition {code}"), with_advice(&error))?;
            Ok(Look::Failed)
        }
    }
}

fn judge(
    results: &mut Results,
    center: &Center,
    arguments: &Arguments,
    endpoint: &EndpointSettings,
    code: &str,
    definition: &Definition,
) -> Result<(), Failure> {
    let input = check::CheckInput {
        real_code: code,
        public_url: arguments.public_url.as_deref(),
        center_is_local: check::is_local(&center.settings().base_url),
    };
    let name = definition.text(&definition.approval_name, "zh-CN").to_owned();
    let checks = check::of(definition, endpoint, &input);
    let mut fits = true;
    for check in checks.iter().filter(|check| check.result != CheckResult::Right) {
        fits &= check.result != CheckResult::Wrong;
        let subject = format!("definition {name} ({code}), {}", check.subject);
        results.add(check.result, &subject, &check.words)?;
    }
    if fits {
        results.ok(
            &format!("definition {name} ({code})"),
            format!("points at the endpoint {}", endpoint.name),
        )?;
    }
    Ok(())
}

fn with_advice(error: &crate::center::client::Error) -> String {
    let words = chain(error);
    match error.fault().and_then(Fault::advice) {
        Some(advice) => format!("{words}. {advice}"),
        None => words,
    }
}

/// Compares our clock with the one in the platform's answers.
async fn clock(results: &mut Results, base_url: &str) -> Result<(), Failure> {
    let url = url(base_url, "/")?;
    let answer = client(&url, Trust::System, PATIENCE)?.get(url.clone()).send().await;
    let theirs = answer.ok().and_then(|answer| {
        let date = answer.headers().get("date")?.to_str().ok()?;
        Timestamp::of_http_date(date)
    });
    let Some(theirs) = theirs else {
        return results.skipped("clock", format!("{base_url} has no Date header"));
    };
    let off = Timestamp::now().as_second().abs_diff(theirs.as_second());
    if off > MOST_OFF {
        let words = format!("{off} s off the platform's; tokens would count as expired, or not yet");
        return results.wrong("clock", format!("{words}. Set it, and keep it by NTP"));
    }
    results.ok("clock", format!("within {MOST_OFF} s of the platform's"))
}
