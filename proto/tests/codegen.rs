//! What is committed under `src/gen/` is what the compiler makes of `protos/` now. Run with
//! `TACIT_REGENERATE=1` to write it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use prost::Message as _;

/// The interfaces; what they import is compiled with them.
const PROTOS: [&str; 3] = [
    "workload.proto",
    "envoy/service/secret/v3/sds.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
];
/// Messages that hold secrets; `src/lib.rs` says how they print.
const SECRETS: [&str; 4] =
    ["X509SVID", "JWTSVID", "ValidateJWTSVIDRequest", "envoy.config.core.v3.DataSource"];

fn generate(into: &Path) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("protos");
    let mut descriptors = protox::compile(PROTOS, [root])?;
    tonic_prost_build::configure()
        .out_dir(into)
        .include_file("mod.rs")
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .skip_debug(SECRETS)
        .compile_fds(descriptors.clone())?;
    // Comments are for people: clients that ask by reflection want names and numbers.
    descriptors.file.iter_mut().for_each(|file| file.source_code_info = None);
    Ok(fs::write(into.join("descriptors.bin"), descriptors.encode_to_vec())?)
}

fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry?.path();
        let name = path.file_name().context("no name")?.to_string_lossy().into_owned();
        Ok((name, fs::read(path)?))
    };
    fs::read_dir(folder)?.map(read).collect()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how a developer asks for new code")]
fn generated_code_is_fresh() -> Result<()> {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gen");
    let fresh = tempfile::tempdir()?;
    generate(fresh.path())?;
    let fresh = files(fresh.path())?;
    if std::env::var("TACIT_REGENERATE").is_ok() {
        for (name, content) in &fresh {
            fs::write(committed.join(name), content)?;
        }
    }
    let found = files(&committed)?;
    let names: Vec<_> = found.keys().collect();
    ensure!(found.keys().eq(fresh.keys()), "src/gen holds {names:?}");
    for (name, content) in &fresh {
        let same = found.get(name) == Some(content);
        ensure!(same, "{name} is stale: TACIT_REGENERATE=1 cargo test -p proto");
    }
    Ok(())
}
