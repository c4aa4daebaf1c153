//! The stock servers that tests and the demo protect, started as any operator would start them:
//! with files of their own, on one port, in the clear.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::pod::{Pod, Server};
use crate::process::must_run;

/// nginx; it answers with the addresses that it saw.
#[derive(Debug)]
pub struct Nginx {
    /// The process.
    pub server: Server,
    /// What it serves under `/file/`.
    pub files: PathBuf,
}

impl Nginx {
    /// Starts nginx on this port of every address; `/` answers `client=… server=…` and the text.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(pod: &Pod, port: u16, text: &str) -> Result<Self> {
        let folder = pod.folder(&format!("nginx-{port}"))?;
        let files = folder.join("file");
        fs::create_dir_all(&files)?;
        let place = folder.display();
        let config = format!(
            "daemon off;\nworker_processes 2;\npid {place}/pid;\nerror_log stderr;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n  access_log off;\n\
             client_body_temp_path {place}/body;\n  proxy_temp_path {place}/proxy;\n  \
             fastcgi_temp_path {place}/fastcgi;\n  uwsgi_temp_path {place}/uwsgi;\n  \
             scgi_temp_path {place}/scgi;\n  \
             server {{\n    listen 0.0.0.0:{port};\n    listen [::]:{port};\n    \
             location / {{ return 200 \"client=$remote_addr:$remote_port \
             server=$server_addr:$server_port {text}\\n\"; }}\n    \
             location /file/ {{ root {place}; }}\n  }}\n}}\n"
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, config)?;
        let arguments =
            ["-p", &folder.to_string_lossy(), "-c", &file.to_string_lossy(), "-e", "stderr"];
        Ok(Self { server: pod.serve("nginx", &arguments, port)?, files })
    }
}

/// redis-server.
#[derive(Debug)]
pub struct Redis {
    /// The process.
    pub server: Server,
}

impl Redis {
    /// Starts redis on this port of every address, with nothing on disk.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(pod: &Pod, port: u16) -> Result<Self> {
        let folder = pod.folder(&format!("redis-{port}"))?;
        let (port_text, folder) = (port.to_string(), folder.to_string_lossy().into_owned());
        let arguments = [
            "--port",
            &port_text,
            "--bind",
            "*",
            "-::*",
            "--protected-mode",
            "no",
            "--save",
            "",
            "--dir",
            &folder,
        ];
        Ok(Self { server: pod.serve("redis-server", &arguments, port)? })
    }
}

/// `PostgreSQL`.
#[derive(Debug)]
pub struct Postgres {
    /// The process.
    pub server: Server,
    /// Where its programs are (`psql`, `pgbench`).
    pub programs: PathBuf,
}

impl Postgres {
    /// Makes a database cluster and serves it on this port. The pod's user must exist by name.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(pod: &Pod, port: u16) -> Result<Self> {
        let programs = newest("/usr/lib/postgresql", "bin")?;
        let folder = pod.folder("postgres")?;
        let data = folder.join("data").to_string_lossy().into_owned();
        let sockets = folder.to_string_lossy().into_owned();
        pod.must(programs.join("initdb"), &["-D", &data, "-A", "trust", "-U", "postgres", "-N"])?;
        fs::write(
            folder.join("data/pg_hba.conf"),
            "local all all trust\nhost all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n",
        )?;
        let arguments = [
            "-D",
            &data,
            "-p",
            &port.to_string(),
            "-c",
            "listen_addresses=*",
            "-c",
            "log_connections=on",
            "-k",
            &sockets,
            "-F",
        ];
        let server = pod.serve(programs.join("postgres"), &arguments, port)?;
        Ok(Self { server, programs })
    }
}

/// `MariaDB`: a server that speaks first.
#[derive(Debug)]
pub struct MariaDb {
    /// The process.
    pub server: Server,
}

impl MariaDb {
    /// Makes a data directory and serves it on this port.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(pod: &Pod, port: u16) -> Result<Self> {
        let folder = pod.folder("mariadb")?;
        let place = folder.display();
        let (data, temporary) = (format!("--datadir={place}/data"), format!("--tmpdir={place}"));
        pod.must(
            "mariadb-install-db",
            &[
                "--no-defaults",
                &data,
                &temporary,
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
            ],
        )?;
        fs::write(
            folder.join("users.sql"),
            "create user app@'%';\ngrant all on *.* to app@'%';\n",
        )?;
        let server = pod.serve(
            "mariadbd",
            &[
                "--no-defaults",
                &data,
                &temporary,
                &format!("--port={port}"),
                &format!("--socket={place}/socket"),
                &format!("--pid-file={place}/pid"),
                "--bind-address=*",
                "--skip-name-resolve",
                &format!("--init-file={place}/users.sql"),
                "--innodb-buffer-pool-size=16M",
            ],
            port,
        )?;
        Ok(Self { server })
    }
}

/// The id of a user by name.
///
/// # Errors
/// When there is no such user.
pub fn user_id(name: &str) -> Result<u32> {
    must_run("id", &["-u", name])?.trim().parse().context("`id` gave no number")
}

/// The folder `inner` of the highest-numbered folder.
fn newest(folder: &str, inner: &str) -> Result<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(folder)
        .with_context(|| format!("nothing in {folder}"))?
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_string_lossy().parse().ok()?;
            Some((number, entry.path().join(inner)))
        })
        .filter(|(_, path): &(u32, PathBuf)| Path::new(path).is_dir())
        .collect();
    versions.sort();
    versions.pop().map(|(_, path)| path).with_context(|| format!("no version in {folder}"))
}
