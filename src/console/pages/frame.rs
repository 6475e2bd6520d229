//! What stands round every page: language, theme, navigation.

use actix_web::{
    HttpRequest,
    http::header::{ACCEPT_LANGUAGE, COOKIE, HeaderMap},
    web,
};

use super::{
    assets,
    parts::{link, query},
    phrases::{Language, Phrases},
};
use crate::time::{Timestamp, Zone};

pub(super) const LANGUAGE_COOKIE: &str = "countersign-lang";
pub(super) const THEME_COOKIE: &str = "countersign-theme";

/// A language or theme is kept this long.
pub(super) const YEAR_SECONDS: u32 = 31_536_000;

/// Light or dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Theme {
    /// As the system says.
    Auto,
    Light,
    Dark,
}

impl Theme {
    const ALL: [Self; 3] = [Self::Auto, Self::Light, Self::Dark];

    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|theme| theme.as_str() == word)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    pub(super) fn color_scheme(self) -> &'static str {
        match self {
            Self::Auto => "light dark",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    fn label(self, t: &Phrases) -> &'static str {
        match self {
            Self::Auto => t.theme_auto,
            Self::Light => t.theme_light,
            Self::Dark => t.theme_dark,
        }
    }
}

/// A theme to choose.
#[derive(Debug, Clone)]
pub(super) struct ThemeChoice {
    pub(super) word: &'static str,
    pub(super) href: String,
    pub(super) label: &'static str,
    pub(super) current: bool,
}

/// The person that a page names.
#[derive(Debug, Clone)]
pub(super) struct Person {
    /// In acts.
    pub(super) name: String,
    /// On pages.
    pub(super) label: String,
    pub(super) may_act: bool,
    /// There is a login, so there is a logout.
    pub(super) by_session: bool,
}

/// One entry of the navigation.
pub(super) struct NavItem {
    pub(super) href: &'static str,
    pub(super) label: &'static str,
    pub(super) current: bool,
}

/// What stands round every page.
#[derive(Clone)]
pub(super) struct Frame {
    pub(super) theme: Theme,
    pub(super) holder: Option<Person>,
    pub(super) host: String,
    /// What was asked, so that it can be changed.
    pub(super) q: String,
    pub(super) other_language: String,
    pub(super) themes: Vec<ThemeChoice>,
    pub(super) css: &'static str,
    pub(super) js: &'static str,
    pub(super) icon: &'static str,
    pub(super) version: &'static str,
    /// Of the times on the page, now.
    pub(super) offset: String,
    pub(super) path: String,
    pub(super) language: Language,
}

impl Frame {
    pub(super) fn nav(&self) -> Vec<NavItem> {
        let t = self.language.phrases();
        let items = [
            ("/", t.nav_home),
            ("/decisions", t.nav_decisions),
            ("/refusals", t.nav_refusals),
            ("/parked", t.nav_parked),
            ("/findings", t.nav_findings),
            ("/acts", t.nav_acts),
            ("/health", t.nav_health),
        ];
        let is_current = |href: &str| match self.path.strip_prefix(href) {
            Some(rest) => rest.is_empty() || (href != "/" && rest.starts_with('/')),
            None => false,
        };
        items.map(|(href, label)| NavItem { href, label, current: is_current(href) }).into()
    }

    pub(super) fn may_act(&self) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.may_act)
    }
}

/// The value of a cookie.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut all =
        headers.get_all(COOKIE).filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    all.find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// A frame in the language and theme that the request asks for, and the cookies that keep them.
pub(super) fn framed(request: &HttpRequest, zone: &Zone) -> (Frame, Vec<String>) {
    let headers = request.headers();
    let asked = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
    let asked = asked.map(web::Query::into_inner).unwrap_or_default();
    let of_query = |name: &str| asked.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str());
    let mut cookies = Vec::new();
    let mut keep = |name: &str, value: &str| {
        cookies.push(format!("{name}={value}; Path=/; Max-Age={YEAR_SECONDS}; SameSite=Strict"));
    };
    let language = match of_query("lang").and_then(Language::parse) {
        Some(language) => {
            keep(LANGUAGE_COOKIE, language.code());
            language
        }
        None => cookie(headers, LANGUAGE_COOKIE).and_then(Language::parse).unwrap_or_else(|| {
            let header = headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
            Language::accepted(header.unwrap_or_default())
        }),
    };
    let theme = match of_query("theme").and_then(Theme::parse) {
        Some(theme) => {
            keep(THEME_COOKIE, theme.as_str());
            theme
        }
        None => cookie(headers, THEME_COOKIE).and_then(Theme::parse).unwrap_or(Theme::Auto),
    };
    let path = request.path().to_owned();
    let is_read = request.method().is_safe();
    let others = query(request);
    let here = |name: &str, value: &str| {
        let others = others.iter().filter(|_| is_read).map(|(name, value)| (&**name, &**value));
        link(if is_read { &path } else { "/" }, others.chain([(name, value)]))
    };
    let now = zone.show(Timestamp::now());
    let frame = Frame {
        theme,
        holder: None,
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        q: if path == "/why" { of_query("q").unwrap_or_default().to_owned() } else { String::new() },
        other_language: here("lang", language.other().code()),
        themes: Theme::ALL
            .map(|one| ThemeChoice {
                word: one.as_str(),
                href: here("theme", one.as_str()),
                label: one.label(language.phrases()),
                current: one == theme,
            })
            .into(),
        css: assets::css(),
        js: assets::js(),
        icon: assets::icon_path(),
        version: env!("CARGO_PKG_VERSION"),
        offset: now.get(23..).unwrap_or("Z").replace('Z', "UTC"),
        path,
        language,
    };
    (frame, cookies)
}
