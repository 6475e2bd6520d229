//! Keys that name certificate and private key files.

use std::path::{Path, PathBuf};

use super::{files, read::Section};
use crate::{
    certificates::{Error, Facts, Validity},
    time::Timestamp,
};

/// Reads `cert_file` and `key_file`: both or neither.
pub(super) fn identity_files(section: &mut Section<'_, '_, '_>) -> Option<Option<(PathBuf, PathBuf)>> {
    let cert_file = file(section, "cert_file");
    let key_file = file(section, "key_file");
    match (cert_file?, key_file?) {
        (None, None) => Some(None),
        (Some(cert_file), Some(key_file)) => {
            if let Some(warning) = files::exposed(&key_file) {
                section.warn("key_file", warning);
            }
            Some(Some((cert_file, key_file)))
        }
        (Some(_), None) => {
            section.fault(
                "key_file",
                "is missing; cert_file needs it",
                "the file of the certificate's private key",
            );
            None
        }
        (None, Some(_)) => {
            section.fault("cert_file", "is missing; key_file needs it", "the file of the key's certificate");
            None
        }
    }
}

/// `Some(None)` if the key is absent.
pub(super) fn file(section: &mut Section<'_, '_, '_>, key: &'static str) -> Option<Option<PathBuf>> {
    section.parsed(key, "the path of a PEM file", |text| match text {
        "" => Err("names no file".to_owned()),
        text => Ok(PathBuf::from(text)),
    })
}

/// Records a certificate or key error at the one of the two keys it concerns.
pub(super) fn identity_fault(section: &mut Section<'_, '_, '_>, key_file: &Path, error: &Error) {
    let key = if error.path() == key_file { "key_file" } else { "cert_file" };
    section.fault(key, error.to_string(), "");
}

/// Reports at `cert_file` a certificate that has expired, expires soon, or is not valid yet.
pub(super) fn check_validity(section: &mut Section<'_, '_, '_>, cert_file: &Path, facts: Facts) {
    let (file, now) = (cert_file.display(), Timestamp::now());
    let days = facts.not_after.since(now).as_secs() / (24 * 3600);
    match facts.validity(now) {
        Validity::Fine => {}
        Validity::Soon | Validity::AtOnce => {
            section.warn(
                "cert_file",
                format!(
                    "the certificate in {file} expires at {} (days left: {days}); renew it",
                    facts.not_after
                ),
            );
        }
        Validity::Expired => {
            section.lapsed(
                "cert_file",
                format!("the certificate in {file} expired at {}", facts.not_after),
                "one that is valid",
            );
        }
        Validity::NotYet => {
            section.lapsed(
                "cert_file",
                format!("the certificate in {file} is not valid before {}", facts.not_before),
                "one that is valid, or a clock that is right",
            );
        }
    }
}
