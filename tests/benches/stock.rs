//! The stock relays of the distribution, set up as their manuals say for mutual TLS 1.3 over TCP:
//! client certificates required, peers verified, no sessions resumed. Everything else is as
//! shipped.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use harness::{Lab, Pod, Server};

use crate::peer::Hop;

/// The name in the certificate, besides its SPIFFE ID: nginx verifies no peer without one.
const NAME: &str = "peer.example.org";

/// A certificate for P-256 with the authority of the lab above it, in files.
#[derive(Debug)]
pub(crate) struct Papers {
    /// Leaf, then its issuer.
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    /// `chain` and `key` in one file.
    both: PathBuf,
    /// The root.
    pub(crate) bundle: PathBuf,
}

impl Papers {
    /// Issues them in a directory of the lab: the same depth of chain as an SVID of a Tacit node.
    pub(crate) fn issue(lab: &Lab) -> Result<Self> {
        let folder = lab.dir().join("papers");
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let file = |name: &str| folder.join(name);
        let [chain, key, both, bundle, request, leaf, extensions] =
            ["chain.pem", "key.pem", "both.pem", "bundle.pem", "csr.pem", "leaf.pem", "ext.cnf"]
                .map(file);
        fs::write(
            &extensions,
            format!(
                "subjectAltName = URI:spiffe://example.org/peer, DNS:{NAME}\n\
                 keyUsage = critical, digitalSignature\n\
                 extendedKeyUsage = serverAuth, clientAuth\nbasicConstraints = critical, CA:FALSE\n"
            ),
        )?;
        let authority = lab.a.state().join("ca/node.pem");
        let mut make = Command::new("openssl");
        make.args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        make.args(["-nodes", "-subj", "/CN=peer", "-keyout"]).arg(&key).arg("-out").arg(&request);
        must(&mut make)?;
        let mut sign = Command::new("openssl");
        sign.args(["x509", "-req", "-days", "2", "-set_serial", "4711", "-in"]).arg(&request);
        sign.arg("-CA").arg(&authority).arg("-CAkey").arg(&authority);
        sign.arg("-extfile").arg(&extensions).arg("-out").arg(&leaf);
        must(&mut sign)?;
        let issuer = certificate(&fs::read_to_string(&authority)?)?;
        fs::write(&chain, fs::read_to_string(&leaf)? + &issuer)?;
        fs::write(&both, [fs::read(&chain)?, fs::read(&key)?].concat())?;
        fs::copy(lab.a.state().join("ca/bundle.pem"), &bundle)?;
        for file in [&chain, &key, &both, &bundle] {
            fs::set_permissions(file, fs::Permissions::from_mode(0o644))?;
        }
        Ok(Self { chain, key, both, bundle })
    }
}

fn must(command: &mut Command) -> Result<()> {
    let done = command.output().context("cannot start openssl")?;
    if !done.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}

/// The certificate in a file that also holds its key.
fn certificate(pem: &str) -> Result<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let at = pem.find(BEGIN).context("no certificate in the authority's file")?;
    let rest = pem.get(at..).unwrap_or_default();
    let end = rest.rfind("-----END CERTIFICATE-----").context("a certificate without an end")?;
    Ok(format!("{}-----END CERTIFICATE-----\n", rest.get(..end).unwrap_or_default()))
}

pub(crate) fn haproxy(pod: &Pod, hop: &Hop<'_>, port: u16) -> Result<Server> {
    let Hop { listen, dial, papers, width, near } = hop;
    let tls = format!(
        "ssl crt {} ca-file {} verify required ssl-min-ver TLSv1.3 no-tls-tickets",
        papers.both.display(),
        papers.bundle.display()
    );
    let (bind, server) =
        if *near { (String::new(), tls + " no-ssl-reuse") } else { (tls, String::new()) };
    let config = format!(
        "global\n  maxconn 8000\n  nbthread {width}\n  tune.ssl.cachesize 0\n\
         defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 10m\n  timeout server 10m\n\
         listen relay\n  bind {listen} {bind}\n  server next {dial} {server}\n"
    );
    let file = write(pod, "haproxy", &config)?;
    pod.serve("haproxy", &["-db", "-f", &file.to_string_lossy()], port)
}

pub(crate) fn nginx(pod: &Pod, hop: &Hop<'_>, port: u16) -> Result<Server> {
    let Hop { listen, dial, papers, width, near } = hop;
    let (chain, key, bundle) =
        (papers.chain.display(), papers.key.display(), papers.bundle.display());
    let tls = if *near {
        format!(
            "listen {listen};\n  proxy_ssl on;\n  proxy_ssl_protocols TLSv1.3;\n  \
             proxy_ssl_certificate {chain};\n  proxy_ssl_certificate_key {key};\n  \
             proxy_ssl_trusted_certificate {bundle};\n  proxy_ssl_verify on;\n  \
             proxy_ssl_verify_depth 4;\n  proxy_ssl_name {NAME};\n  proxy_ssl_session_reuse off;\n"
        )
    } else {
        format!(
            "listen {listen} ssl;\n  ssl_protocols TLSv1.3;\n  ssl_certificate {chain};\n  \
             ssl_certificate_key {key};\n  ssl_client_certificate {bundle};\n  \
             ssl_verify_client on;\n  ssl_verify_depth 4;\n  ssl_session_tickets off;\n  \
             ssl_session_cache off;\n"
        )
    };
    let place = pod.folder(&format!("nginx-{port}"))?;
    let config = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\n\
         worker_processes {width};\nworker_rlimit_nofile 20000;\npid {}/pid;\nerror_log stderr;\n\
         events {{ worker_connections 18000; }}\n\
         stream {{ server {{\n  {tls}  proxy_pass {dial};\n}} }}\n",
        place.display(),
    );
    let file = write(pod, &format!("nginx-{port}"), &config)?;
    let (place, file) = (place.to_string_lossy(), file.to_string_lossy());
    pod.serve("nginx", &["-p", &place, "-c", &file, "-e", "stderr"], port)
}

pub(crate) fn stunnel(pod: &Pod, hop: &Hop<'_>, port: u16) -> Result<Server> {
    let Hop { listen, dial, papers, near, .. } = hop;
    let side = if *near { "client = yes\n" } else { "requireCert = yes\n" };
    let config = format!(
        "foreground = yes\nsyslog = no\ndebug = warning\npid =\n\
         socket = a:SO_REUSEADDR=1\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n\
         [relay]\n{side}accept = {listen}\nconnect = {dial}\ncert = {}\nkey = {}\nCAfile = {}\n\
         verifyChain = yes\nsslVersion = TLSv1.3\noptions = NO_TICKET\nsessionResume = no\n",
        papers.chain.display(),
        papers.key.display(),
        papers.bundle.display()
    );
    let file = write(pod, &format!("stunnel-{port}"), &config)?;
    pod.serve("stunnel4", &[&file.to_string_lossy()], port)
}

/// Writes a relay's configuration where its user can read it.
pub(crate) fn write(pod: &Pod, name: &str, config: &str) -> Result<PathBuf> {
    let file = Path::join(&pod.folder(name)?, "config");
    fs::write(&file, config)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    Ok(file)
}
