//! How somebody looks at the page: the language, the theme, whose phone, which list, which view. All of it is in the
//! URL or a cookie, so that every state of the page is a link.

use actix_web::{HttpRequest, http::header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::phrases::{Lang, Phrases};

/// Everything but what RFC 3986 calls unreserved.
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

// Ports share cookies, so the names say whose they are.
const LANG: &str = "countersign_emulator_lang";
const THEME: &str = "countersign_emulator_theme";

/// A list of the phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Pending,
    Done,
    Carbons,
    Started,
}

impl List {
    pub(super) const ALL: [Self; 4] = [Self::Pending, Self::Done, Self::Carbons, Self::Started];

    const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Done => "done",
            Self::Carbons => "cc",
            Self::Started => "started",
        }
    }
}

/// A view of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Decrypted,
    Sent,
    Hex,
    Curl,
}

impl View {
    pub(super) const ALL: [Self; 4] = [Self::Decrypted, Self::Sent, Self::Hex, Self::Curl];

    const fn word(self) -> &'static str {
        match self {
            Self::Decrypted => "decrypted",
            Self::Sent => "sent",
            Self::Hex => "hex",
            Self::Curl => "curl",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) lang: Lang,
    /// `auto`, `light` or `dark`.
    pub(super) theme: &'static str,
    /// Whose phone; one of the tenant's users.
    pub(super) user: String,
    pub(super) list: List,
    pub(super) view: View,
    /// The path of this page, for links that change something else.
    path: String,
    /// Chosen by this request, to be remembered.
    chosen: Vec<String>,
}

fn theme(word: &str) -> Option<&'static str> {
    ["auto", "light", "dark"].into_iter().find(|theme| *theme == word)
}

impl Look {
    pub(super) fn of(request: &HttpRequest, users: &[String]) -> Self {
        let query = actix_web::web::Query::<Vec<(String, String)>>::from_query(request.query_string());
        let query = query.map(actix_web::web::Query::into_inner).unwrap_or_default();
        let asked = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let cookie = |name: &str| cookie(request, name);
        let wanted_lang = asked("lang").and_then(Lang::parse);
        let lang = wanted_lang
            .or_else(|| cookie(LANG).as_deref().and_then(Lang::parse))
            .or_else(|| accepted(request))
            .unwrap_or(Lang::En);
        let wanted_theme = asked("theme").and_then(theme);
        let theme = wanted_theme.or_else(|| cookie(THEME).as_deref().and_then(theme)).unwrap_or("auto");
        let user = asked("user").and_then(|user| users.iter().find(|known| *known == user));
        let user = user.or_else(|| users.first()).cloned().unwrap_or_default();
        let list = asked("list").and_then(|word| List::ALL.into_iter().find(|list| list.word() == word));
        let view = asked("view").and_then(|word| View::ALL.into_iter().find(|view| view.word() == word));
        let chosen = [
            wanted_lang.map(|lang| remembered(LANG, lang.word())),
            wanted_theme.map(|theme| remembered(THEME, theme)),
        ];
        Self {
            lang,
            theme,
            user,
            list: list.unwrap_or(List::Pending),
            view: view.unwrap_or(View::Decrypted),
            path: request.path().to_owned(),
            chosen: chosen.into_iter().flatten().collect(),
        }
    }

    pub(super) const fn phrases(&self) -> &'static Phrases {
        self.lang.phrases()
    }

    /// What to set.
    pub(super) fn cookies(&self) -> &[String] {
        &self.chosen
    }

    /// A link that keeps how somebody looks.
    pub(super) fn link(&self, path: impl AsRef<str>) -> String {
        self.link_with(path.as_ref(), &self.user, self.list, self.view)
    }

    pub(super) fn here(&self) -> String {
        self.link(&self.path)
    }

    pub(super) fn to_list(&self, list: List) -> String {
        self.link_with(&self.path, &self.user, list, self.view) + "#phone"
    }

    pub(super) fn to_view(&self, tap: u64, view: View) -> String {
        self.link_with(&format!("/taps/{tap}"), &self.user, self.list, view) + "#request"
    }

    /// The same page with one more choice.
    pub(super) fn with(&self, name: &str, value: &str) -> String {
        let here = self.here();
        let mark = if here.contains('?') { '&' } else { '?' };
        format!("{here}{mark}{name}={value}")
    }

    fn link_with(&self, path: &str, user: &str, list: List, view: View) -> String {
        let mut query = Vec::new();
        if !user.is_empty() {
            query.push(format!("user={}", utf8_percent_encode(user, IN_QUERY)));
        }
        if list != List::Pending {
            query.push(format!("list={}", list.word()));
        }
        if view != View::Decrypted {
            query.push(format!("view={}", view.word()));
        }
        if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
    }
}

fn remembered(name: &str, value: &str) -> String {
    format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age=31536000")
}

fn cookie(request: &HttpRequest, name: &str) -> Option<String> {
    let headers = request.headers().get_all(header::COOKIE).filter_map(|header| header.to_str().ok());
    let mut pairs =
        headers.flat_map(|header| header.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}

/// The first language of the browser that the page has.
fn accepted(request: &HttpRequest) -> Option<Lang> {
    let header = request.headers().get(header::ACCEPT_LANGUAGE)?.to_str().ok()?;
    let mut ranges: Vec<(f32, Lang)> = header
        .split(',')
        .filter_map(|range| {
            let mut parts = range.split(';');
            let lang = Lang::parse(parts.next()?.trim())?;
            let quality = parts.find_map(|part| part.trim().strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
            (quality > 0.0).then_some((quality, lang))
        })
        .collect();
    ranges.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    ranges.first().map(|(_, lang)| *lang)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn look(uri: &str, headers: &[(&str, &str)]) -> Look {
        let request =
            headers.iter().fold(TestRequest::with_uri(uri), |request, header| request.append_header(*header));
        Look::of(&request.to_http_request(), &["zhang3".to_owned(), "李 4&x=1".to_owned()])
    }

    #[test]
    fn a_language_is_chosen_then_remembered_then_that_of_the_browser() {
        let browser = ("accept-language", "fr, zh-CN;q=0.8, en;q=0.7");
        let cookie = ("cookie", "countersign_emulator_lang=en");
        assert_eq!(look("/", &[]).lang, Lang::En);
        assert_eq!(look("/", &[browser]).lang, Lang::Zh);
        assert_eq!(look("/", &[browser, cookie]).lang, Lang::En);
        let chosen = look("/?lang=zh", &[browser, cookie]);
        assert_eq!((chosen.lang, chosen.cookies().len()), (Lang::Zh, 1));
        assert_eq!(look("/?lang=%3Cscript%3E&theme=x", &[]).cookies().len(), 0);
    }

    #[test]
    fn links_keep_how_somebody_looks_and_nothing_else() {
        let look = look("/taps/3?user=%E6%9D%8E%204%26x%3D1&list=done&view=hex&evil=1", &[]);
        assert_eq!((look.user.as_str(), look.list, look.view), ("李 4&x=1", List::Done, View::Hex));
        assert_eq!(look.here(), "/taps/3?user=%E6%9D%8E%204%26x%3D1&list=done&view=hex");
        assert_eq!(self::look("/?user=nobody", &[]).link("/"), "/?user=zhang3");
    }
}
