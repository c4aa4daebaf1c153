//! A certificate of the web, by an authority of its own, in files: what an operator buys or has made.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::Lab;
use crate::process::must;

/// The authority, and a certificate for one address.
#[derive(Debug)]
pub struct Web {
    folder: PathBuf,
}

impl Web {
    /// Makes both with OpenSSL.
    ///
    /// # Errors
    /// When OpenSSL does not.
    pub fn new(lab: &Lab, ip: &str) -> Result<Self> {
        let web = Self { folder: lab.dir().join(format!("web-{ip}")) };
        fs::create_dir_all(&web.folder)?;
        web.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
             -subj /CN=web -keyout ca.key -out ca.pem",
        )?;
        web.issue(ip)?;
        Ok(web)
    }

    /// Makes another certificate by the same authority, in the same files.
    ///
    /// # Errors
    /// When OpenSSL does not.
    pub fn issue(&self, ip: &str) -> Result<()> {
        self.openssl(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=server \
             -keyout fresh.key -out server.csr",
        )?;
        fs::write(self.folder.join("extensions"), format!("subjectAltName=IP:{ip}\n"))?;
        self.openssl(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 \
             -extfile extensions -out fresh.pem",
        )?;
        fs::set_permissions(self.folder.join("fresh.key"), fs::Permissions::from_mode(0o600))?;
        for name in ["key", "pem"] {
            let fresh = self.folder.join(format!("fresh.{name}"));
            fs::rename(fresh, self.folder.join(format!("server.{name}")))?;
        }
        Ok(())
    }

    /// The certificate of the authority.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The certificate that is served.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("server.pem")
    }

    /// The lines of the configuration that name certificate and key.
    pub fn files(&self) -> String {
        let file = |name: &str| self.folder.join(name).display().to_string();
        format!("certificate = \"{}\"\nkey = \"{}\"\n", file("server.pem"), file("server.key"))
    }

    fn openssl(&self, line: &str) -> Result<()> {
        let folder: &Path = &self.folder;
        must(Command::new("openssl").args(line.split_whitespace()).current_dir(folder)).map(drop)
    }
}
