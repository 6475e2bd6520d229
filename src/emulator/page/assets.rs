//! Script, style and icon, built into the program. Their names have a hash of what is in them, so that a browser may
//! keep them for ever.

use std::sync::LazyLock;

use actix_web::{
    HttpResponse,
    http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS},
    web,
};
use sha2::{Digest, Sha256};

struct Asset {
    name: String,
    kind: &'static str,
    bytes: &'static [u8],
}

pub(super) struct Names {
    pub(super) style: String,
    pub(super) script: String,
    pub(super) icon: String,
}

static ASSETS: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    let asset = |stem: &str, ending: &str, kind, bytes: &'static [u8]| {
        let hash: String = Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Asset { name: format!("{stem}-{hash}.{ending}"), kind, bytes }
    };
    [
        asset("emulator", "css", "text/css; charset=utf-8", include_bytes!("assets/emulator.css")),
        asset("emulator", "mjs", "text/javascript; charset=utf-8", include_bytes!("assets/emulator.mjs")),
        asset("icon", "svg", "image/svg+xml", include_bytes!("assets/icon.svg")),
    ]
});

/// The URLs of the assets.
pub(super) static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let url = |asset: &Asset| format!("/assets/{}", asset.name);
    let [style, script, icon] = &*ASSETS;
    Names { style: url(style), script: url(script), icon: url(icon) }
});

pub(super) async fn asset(name: web::Path<String>) -> HttpResponse {
    match ASSETS.iter().find(|asset| asset.name == *name) {
        Some(asset) => HttpResponse::Ok()
            .content_type(asset.kind)
            .insert_header((CACHE_CONTROL, "public, max-age=31536000, immutable"))
            .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .body(asset.bytes),
        None => HttpResponse::NotFound().finish(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assets_are_within_their_budgets() {
        for (asset, most) in ASSETS.iter().zip([24 << 10, 24 << 10, 1 << 10]) {
            assert!(asset.bytes.len() <= most, "{} has {} bytes", asset.name, asset.bytes.len());
        }
    }
}
