//! Certificates and keys as files: PEM, keys readable by their owner only, nothing replaced unasked.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Issued, Paths, TlsError};

const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// What to do about files that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overwrite {
    /// Refuse.
    Never,
    /// Put the new ones in their place.
    Replace,
}

/// Writes a certificate and its key.
pub(super) fn write_pair(
    paths: &Paths,
    issued: &Issued,
    overwrite: Overwrite,
) -> Result<(), TlsError> {
    if overwrite == Overwrite::Never {
        for path in [&paths.key, &paths.certificate] {
            if path.exists() {
                return Err(exists(path));
            }
        }
    }
    if let Some(dir) = paths.key.parent() {
        fs::create_dir_all(dir).map_err(|e| TlsError::File("create", dir.into(), e))?;
    }
    write(&paths.key, &issued.key, KEY_MODE, overwrite)?;
    write(&paths.certificate, &issued.certificate, CERTIFICATE_MODE, overwrite)
}

fn write(path: &Path, text: &str, mode: u32, overwrite: Overwrite) -> Result<(), TlsError> {
    if overwrite == Overwrite::Replace {
        // Made anew rather than truncated, so that the mode is the one asked for.
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(TlsError::File("replace", path.into(), error));
            }
            _ => {}
        }
    }
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = opened.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(path),
        _ => TlsError::File("write", path.into(), error),
    })?;
    file.write_all(text.as_bytes()).map_err(|e| TlsError::File("write", path.into(), e))
}

fn exists(path: &Path) -> TlsError {
    let advice = if path.file_stem().is_some_and(|stem| stem == "ca") {
        "an authority is never replaced: what it issued would stop working"
    } else {
        "say --replace to put a new certificate in its place"
    };
    TlsError::Exists(path.into(), advice)
}

/// Whether a PEM certificate contains this public key.
///
/// Its encoding occurs in a certificate once and verbatim, so looking for the bytes will do.
pub(super) fn certificate_holds(pem: &str, public_key: &[u8]) -> bool {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD
        .decode(body.trim())
        .is_ok_and(|der| der.windows(public_key.len()).any(|part| part == public_key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_for_their_owner_and_replaced_on_request_only() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { certificate: dir.path().join("n.pem"), key: dir.path().join("n.key") };
        let issued = |text: &str| Issued { certificate: text.into(), key: text.into() };
        write_pair(&paths, &issued("one"), Overwrite::Never).unwrap();
        assert!(write_pair(&paths, &issued("two"), Overwrite::Never).is_err());
        assert_eq!(fs::read_to_string(&paths.key).unwrap(), "one");
        write_pair(&paths, &issued("two"), Overwrite::Replace).unwrap();
        assert_eq!(fs::read_to_string(&paths.key).unwrap(), "two");
        assert_eq!(fs::metadata(&paths.key).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
