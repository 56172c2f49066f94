//! A side's own key pair: made at first use, kept in one PEM file that only its owner can read.

use std::{
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::hmac;
use rustls::{
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};

use crate::{fingerprint::Fingerprint, tls};

/// A private key and the self-made certificate around it.
#[derive(Clone)]
pub struct Identity {
    pub(crate) certified: Arc<CertifiedKey>,
    fingerprint: Fingerprint,
    /// What stands in front of the key in its file.
    note: String,
    /// Keyed with the private key: derives secrets that last as long as it does.
    deriver: hmac::Key,
}

impl Identity {
    /// A new key, kept nowhere.
    pub fn generate() -> Result<Self, IdentityError> {
        Self::from_pem(&generate_pem()?)
    }

    /// The key in `file`, which is made, readable by its owner alone, where it is missing.
    pub fn load_or_create(file: &Path) -> Result<Self, IdentityError> {
        match Self::load(file) {
            Err(IdentityError::File { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                match create_private(file, &generate_pem()?) {
                    // Somebody else was faster: theirs is the key.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    made => made.map_err(|error| IdentityError::file(file, error))?,
                }
                Self::load(file)
            }
            loaded => loaded,
        }
    }

    /// A new key in `file`, which is made, readable by its owner alone, and must not be there yet. One line
    /// of `note` stands in front of the key: whoever reads PEM skips it.
    pub fn create(file: &Path, note: &str) -> Result<Self, IdentityError> {
        let pem = format!("{}\n{}", note.lines().next().unwrap_or_default(), generate_pem()?);
        create_private(file, &pem).map_err(|error| IdentityError::file(file, error))?;
        Self::load(file)
    }

    /// The key in `file`: a PEM private key and certificate.
    pub fn load(file: &Path) -> Result<Self, IdentityError> {
        let pem = fs::read_to_string(file).map_err(|error| IdentityError::file(file, error))?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let mode = fs::metadata(file).map_err(|error| IdentityError::file(file, error))?.mode();
            if mode & 0o077 != 0 {
                return Err(IdentityError::Exposed { file: file.into(), mode: mode & 0o777 });
            }
        }
        Self::from_pem(&pem).map_err(|error| match error {
            IdentityError::Malformed(why) => IdentityError::MalformedFile { file: file.into(), why },
            other => other,
        })
    }

    /// How others know this key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The line that stands in front of the key in its file; empty where none does.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// A secret for `purpose`, the same whenever this key is loaded.
    pub(crate) fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut secret = [0; 32];
        secret.copy_from_slice(hmac::sign(&self.deriver, purpose.as_bytes()).as_ref());
        secret
    }

    fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        let malformed = |why: &dyn fmt::Display| IdentityError::Malformed(why.to_string());
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| malformed(&why(&error)))?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| malformed(&why(&error)))?;
        let fingerprint = Fingerprint::of(&certificate).map_err(|error| malformed(&error))?;
        let deriver = hmac::Key::new(hmac::HMAC_SHA256, key.secret_der());
        let certified =
            CertifiedKey::from_der(vec![certificate], key, &tls::provider()).map_err(|error| malformed(&error))?;
        let note = pem.lines().next().filter(|line| !line.starts_with("-----")).unwrap_or_default().to_owned();
        Ok(Self { certified: Arc::new(certified), fingerprint, note, deriver })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_tuple("Identity").field(&self.fingerprint).finish()
    }
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or made.
    #[error("identity {file}: {error}", file = file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others than its owner can read the private key.
    #[error("identity {file} is readable by others (mode {mode:o}): run chmod 600 {file}", file = file.display())]
    Exposed {
        /// Which file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The PEM holds no private key with its certificate.
    #[error("not an identity (a PEM private key and its certificate): {0}")]
    Malformed(String),
    /// The same, in a file.
    #[error("identity {file} is not a PEM private key with its certificate: {why}", file = file.display())]
    MalformedFile {
        /// Which file.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// No key could be made.
    #[error("cannot make a key: {0}")]
    Generate(#[from] rcgen::Error),
}

impl IdentityError {
    fn file(file: &Path, error: io::Error) -> Self {
        Self::File { file: file.into(), error }
    }
}

/// What is wrong with a PEM. Its own words may quote the line, and with it the key.
fn why(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::NoItemsFound => "the key or the certificate is missing",
        pem::Error::MissingSectionEnd { .. } => "an END line is missing",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is damaged",
        pem::Error::Base64Decode(_) => "what stands between BEGIN and END is not base64",
        _ => "it cannot be read",
    }
}

/// ECDSA P-256: as safe and about as fast as Ed25519 here, and the one that browsers accept too.
fn generate_pem() -> Result<String, IdentityError> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = rcgen::CertificateParams::new(vec!["ftpq".into()])?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "ftpq");
    let certificate = params.self_signed(&key)?;
    Ok(key.serialize_pem() + &certificate.pem())
}

/// Whole or not at all, never replacing: a crash must not leave half a key.
fn create_private(file: &Path, pem: &str) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = fs::DirBuilder::new();
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        builder.mode(0o700);
        options.mode(0o600);
    }
    builder.recursive(true).create(folder)?;
    // A name of its own: what a crash may have left behind is in nobody's way.
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    let temporary = folder.join(format!(".identity-{:016x}", u64::from_be_bytes(random)));
    let written = options.open(&temporary).and_then(|mut out| {
        out.write_all(pem.as_bytes())?;
        out.sync_all()
    });
    // A hard link, unlike a rename, does not replace what another process may just have made.
    let linked = written.and_then(|()| fs::hard_link(&temporary, file));
    let _ = fs::remove_file(&temporary);
    linked?;
    // Not every file system can: then the name comes to the disk when it does.
    let _ = fs::File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("identity/client.pem");
        let first = Identity::load_or_create(&file).unwrap();
        assert_eq!(Identity::load_or_create(&file).unwrap().fingerprint(), first.fingerprint());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
            fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
            assert!(matches!(Identity::load(&file), Err(IdentityError::Exposed { mode: 0o640, .. })));
        }
        assert!(!format!("{first:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_note_in_front_of_a_key_is_kept_with_it() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("identity/server-next.pem");
        let made = Identity::create(&file, "takes over: soon\n-----BEGIN").unwrap();
        assert_eq!(
            (made.note(), Identity::load(&file).unwrap().fingerprint()),
            ("takes over: soon", made.fingerprint())
        );
        let again = Identity::create(&file, "").unwrap_err();
        assert!(matches!(again, IdentityError::File { error, .. } if error.kind() == io::ErrorKind::AlreadyExists));
        assert_eq!(Identity::load(&file).unwrap().fingerprint(), made.fingerprint());
        assert_eq!(Identity::generate().unwrap().note(), "");
        let left: Vec<_> =
            fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["server-next.pem"]);
    }

    #[test]
    fn a_file_that_is_no_key_is_named() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("x.pem");
        create_private(&file, "not pem").unwrap();
        let error = Identity::load(&file).unwrap_err().to_string();
        assert!(error.contains("x.pem"), "{error}");
    }

    /// The words in which somebody could find the private key of `pem`.
    fn traces(pem: &str) -> Vec<String> {
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        let der = key.secret_der();
        // The scalar of an ECPrivateKey (RFC 5915) is its first octet string of 32 bytes.
        let at = der.windows(2).position(|bytes| bytes == [4, 32]).unwrap() + 2;
        let [a, b, c, d, ..] = der[at..] else { panic!("no scalar") };
        let base64 = pem.lines().skip(1).take_while(|line| !line.starts_with("--")).map(|line| line[..20].to_owned());
        let numbers = [format!("{a}, {b}, {c}, {d}"), format!("{a:02x}{b:02x}{c:02x}{d:02x}"), "PRIVATE".into()];
        base64.take(2).chain(numbers).collect()
    }

    /// What anybody may write to a log of it.
    #[test]
    fn no_description_shows_the_key() {
        let pem = generate_pem().unwrap();
        let identity = Identity::from_pem(&pem).unwrap();
        let server = tls::server_config(&identity).unwrap();
        let described =
            format!("{identity:?} {identity:#?} {:?} {:#?} {server:?}", identity.certified, identity.deriver);
        for trace in traces(&pem) {
            assert!(!described.contains(&trace), "{trace:?}");
        }
    }

    /// Somebody pasted it without its line breaks, say.
    #[test]
    fn a_damaged_file_is_not_quoted() {
        let pem = generate_pem().unwrap();
        for damaged in [
            pem.replace('\n', ""),
            pem.replacen("-----\n", "-----", 1),
            pem.replacen("-----END PRIVATE KEY-----", "", 1),
            pem.replacen("\n", "\n!", 1),
            pem.replace("PRIVATE KEY", "KEY"),
            pem.replacen("MIG", "MIH", 1),
        ] {
            let said = Identity::from_pem(&damaged).map(drop).unwrap_err();
            let said = format!("{said} {said:?}");
            for trace in traces(&pem) {
                assert!(!said.contains(&trace), "{said}");
            }
            assert!(said.len() < 300, "{said}");
        }
    }
}
