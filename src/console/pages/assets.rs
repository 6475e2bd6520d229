//! Style sheet, script and icon, within the program. Their names contain their hash, so browsers may keep them.

use std::{fmt::Write, sync::LazyLock};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, HeaderValue},
    },
};
use sha2::{Digest, Sha256};

use crate::console::problem::Problem;

struct Asset {
    path: String,
    kind: &'static str,
    body: &'static [u8],
}

impl Asset {
    fn new(extension: &str, kind: &'static str, body: &'static [u8]) -> Self {
        let mut path = "/assets/console-".to_owned();
        for byte in &Sha256::digest(body)[..6] {
            write!(path, "{byte:02x}").expect("writing to a String cannot fail");
        }
        path.push('.');
        path.push_str(extension);
        Self { path, kind, body }
    }
}

static ASSETS: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    [
        Asset::new("css", "text/css; charset=utf-8", include_bytes!("assets/console.css")),
        Asset::new("js", "text/javascript; charset=utf-8", include_bytes!("assets/console.js")),
        Asset::new("svg", "image/svg+xml", include_bytes!("assets/icon.svg")),
    ]
});

pub(super) fn css() -> &'static str {
    &ASSETS[0].path
}

pub(super) fn js() -> &'static str {
    &ASSETS[1].path
}

pub(super) fn icon_path() -> &'static str {
    &ASSETS[2].path
}

/// `GET /assets/{name}`, for anybody: nothing in them is secret.
pub(super) async fn get(request: HttpRequest) -> HttpResponse {
    match ASSETS.iter().find(|asset| asset.path == request.path()) {
        Some(asset) => served(asset),
        None => Problem::new(StatusCode::NOT_FOUND, "not_found", "No such asset of this version.").response(),
    }
}

fn served(asset: &'static Asset) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(asset.kind)
        .insert_header((CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")))
        .body(asset.body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assets_keep_to_their_budgets() {
        let [css, js, icon] = &*ASSETS;
        assert!(css.body.len() <= 24 << 10, "{}", css.body.len());
        assert!(js.body.len() <= 24 << 10, "{}", js.body.len());
        assert!(icon.body.len() <= 1 << 10, "{}", icon.body.len());
    }
}
