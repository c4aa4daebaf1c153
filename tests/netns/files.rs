//! SVIDs in files: real programs read them, are told of renewals, and nothing is written where it
//! should not be.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use harness::{Group, Lab, Node, Record, Rules, Server, eventually, server_id, uid};

/// Renewed at half of it.
const SHORT: &str = "svid_ttl = \"10s\"";

/// Where the server's programs keep what is theirs: a directory of their own.
fn home(lab: &Lab) -> Result<PathBuf> {
    let home = lab.dir().join("home");
    fs::create_dir(&home)?;
    chown(&home, Some(uid::SERVER), Some(uid::SERVER))?;
    Ok(home)
}

/// `[[files]]` for the server's identity, in a directory below this one, and more lines.
fn files(folder: &Path, more: &str) -> String {
    let (id, owner) = (server_id(), uid::SERVER);
    format!(
        "[[files]]\nname = \"server-tls\"\nspiffe_id = \"{id}\"\nowner = \"{owner}:{owner}\"\n\
         directory = \"{}\"\n{more}\n",
        folder.join("svid").display()
    )
}

fn wait_for(path: &Path) -> Result<()> {
    eventually("files", || path.exists().then_some(()))
        .with_context(|| format!("{} did not appear", path.display()))
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into()));
    names.collect()
}

/// Waits until the daemon says that it is not ready for this reason.
fn not_ready_for(node: &Node, why: &str) -> Result<()> {
    let says = || Some(status(node).ok()?).filter(|said| said.contains(why));
    let told = eventually("a reason not to be ready", says);
    told.map(|_| ()).with_context(|| status(node).unwrap_or_default())
}

/// Whatever the daemon says of itself; the exit code tells readiness.
fn status(node: &Node) -> Result<String> {
    let socket = node.socket();
    let words = ["status", "--output", "json", "--socket", &*socket.to_string_lossy()];
    Ok(node.tacit(&words)?.stdout)
}

fn handed_over(lab: &Lab, serial: &str) -> Result<()> {
    let told = |it: &Record| {
        let detail = it.field("detail");
        it.field("reason") == "svid_handed_over"
            && detail.contains(serial)
            && detail.contains("files")
    };
    eventually("a record", || lab.b.audit().records().into_iter().find(told))
        .map(|_| ())
        .with_context(|| lab.b.audit().shown())
}

/// The serial of the certificate in a file, lower-case hex.
fn serial_in(lab: &Lab, file: &Path) -> Result<String> {
    let file = file.to_string_lossy();
    let said = lab.b.in_netns("openssl", &["x509", "-noout", "-serial", "-in", &file])?;
    serial(said.ok()?)
}

fn serial(said: &str) -> Result<String> {
    let line = said.lines().find_map(|line| line.strip_prefix("serial="));
    Ok(line.with_context(|| format!("no serial in: {said}"))?.trim().to_lowercase())
}

/// nginx with TLS of its own, from the files, as the server's user.
fn nginx(lab: &Lab, home: &Path, files: &str) -> Result<Server> {
    let place = home.display();
    let config = format!(
        "daemon off;\nworker_processes 1;\npid {place}/nginx.pid;\nerror_log stderr;\nevents {{ }}\n\
         http {{\n  access_log off;\n  client_body_temp_path {place}/body;\n  \
         proxy_temp_path {place}/proxy;\n  fastcgi_temp_path {place}/fastcgi;\n  \
         uwsgi_temp_path {place}/uwsgi;\n  scgi_temp_path {place}/scgi;\n  server {{\n    \
         listen 0.0.0.0:8443 ssl;\n    {files}\n    ssl_verify_client on;\n    \
         ssl_verify_depth 3;\n    location / {{ return 200 \"$ssl_client_verify\\n\"; }}\n  }}\n}}\n"
    );
    let file = home.join("nginx.conf");
    fs::write(&file, config)?;
    let arguments = ["-p", &home.to_string_lossy(), "-c", &file.to_string_lossy(), "-e", "stderr"];
    lab.b.pod(Group::Outside, uid::SERVER).serve("nginx", &arguments, 8443)
}

/// What a client of the mesh sees: the serial of the server's certificate, verified by the bundle.
fn seen(lab: &Lab, bundle: &Path) -> Result<String> {
    let client = lab.mint(&harness::client_id(), &[])?;
    let command = format!(
        "echo | openssl s_client -connect 127.0.0.1:8443 -verify_return_error -CAfile {} -cert {} \
         -cert_chain {} -key {} 2>&1 | tee /dev/stderr | openssl x509 -noout -serial",
        bundle.display(),
        client.chain.display(),
        client.chain.display(),
        client.key.display(),
    );
    let said = lab.b.in_netns("sh", &["-c", &command])?;
    ensure!(said.stderr.contains("Verify return code: 0"), "{said:?}");
    serial(&said.stdout)
}

/// The first set of files takes a restart: the privileges for it are given up otherwise.
fn with_files(lab: &Lab, rules: &Rules) -> Result<()> {
    lab.b.configure(rules)?;
    let socket = lab.b.socket().display().to_string();
    let refused = || {
        let said = lab.b.tacit(&["status", "--socket", &socket]).ok()?.stdout;
        said.contains("started without [[files]]").then_some(())
    };
    eventually("a word of it", refused)?;
    lab.b.stop();
    lab.b.start_answering()
}

#[test]
fn nginx_serves_the_svid_from_files_and_the_next_one_after_a_signal() -> Result<()> {
    let rules = Rules::client_calls_server().issuer(SHORT);
    Lab::check(&rules, |lab| {
        let home = home(lab)?;
        let told = format!("pid_file = \"{}\"", home.join("nginx.pid").display());
        with_files(lab, &rules.clone().rule(&files(&home, &told)))?;
        let place = home.join("svid");
        let (chain, key, bundle) =
            (place.join("svid.pem"), place.join("svid.key"), place.join("bundle.pem"));
        wait_for(&bundle)?;
        let found = fs::metadata(&key)?;
        let mode = found.permissions().mode() & 0o7777;
        ensure!((found.uid(), mode) == (uid::SERVER, 0o600), "{found:?}");
        let tls = format!(
            "ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {};",
            chain.display(),
            key.display(),
            bundle.display()
        );
        let _nginx = nginx(lab, &home, &tls)?;
        let first = seen(lab, &bundle)?;
        handed_over(lab, &first)?;
        let renewed = || seen(lab, &bundle).ok().filter(|serial| *serial != first);
        let second = eventually("the next SVID", renewed)?;
        handed_over(lab, &second)?;
        let versions = names(&place)?.into_iter().filter(|name| name.starts_with("..tacit-"));
        ensure!(versions.count() <= 2, "old versions stay: {:?}", names(&place)?);
        // The rule goes, and the files with it; nginx goes on with what it has read.
        lab.b.configure(&rules)?;
        eventually("an empty directory", || names(&place).ok().filter(Vec::is_empty))?;
        let removed = |it: &Record| it.field("reason") == "files_removed";
        eventually("a record", || lab.b.audit().records().into_iter().find(removed))?;
        Ok(())
    })
}

#[test]
fn a_command_runs_as_the_owner_with_nothing_of_the_daemon() -> Result<()> {
    let rules = Rules::client_calls_server().issuer(SHORT);
    Lab::check(&rules, |lab| {
        let home = home(lab)?;
        let script = home.join("reload");
        let said = home.join("said");
        // The first run hangs, the next ones say who they are.
        fs::write(
            &script,
            format!(
                "#!/bin/sh\ncd {}\n[ -e hung ] || {{ touch hung; sleep 60 & sleep 60; }}\n\
                 {{ id -u; grep NoNewPrivs /proc/self/status; tail -n +3 /proc/net/dev; \
                 cat /proc/self/cgroup; openssl x509 -noout -serial -in svid/both.pem; }} >new\n\
                 mv new said\n",
                home.display()
            ),
        )?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let told = format!(
            "certificate = \"both.pem\"\nkey = \"both.pem\"\ncommand = [\"{}\"]\n\
             command_timeout = \"1s\"",
            script.display()
        );
        with_files(lab, &rules.clone().rule(&files(&home, &told)))?;
        not_ready_for(&lab.b, "was killed")?;
        wait_for(&said)?;
        let first = fs::read_to_string(&said)?;
        let lines: Vec<&str> = first.lines().collect();
        ensure!(lines.first() == Some(&uid::SERVER.to_string().as_str()), "{first}");
        ensure!(first.contains("NoNewPrivs:\t1") && !first.contains("veth0"), "{first}");
        ensure!(first.contains("-commands/") && !first.contains("/daemon\n"), "{first}");
        ensure!(fs::metadata(&said)?.uid() == uid::SERVER);
        let again = || Some(fs::read_to_string(&said).ok()?).filter(|text| *text != first);
        let second = eventually("the command after a renewal", again)?;
        ensure!(serial(&second)? == serial_in(lab, &home.join("svid/both.pem"))?, "{second}");
        let ready = || status(&lab.b).ok().filter(|said| said.contains("\"ready\":true"));
        eventually("readiness", ready)?;
        let left = lab.b.in_netns("sh", &["-c", "pgrep -u 21002 -f 'sleep 60' | wc -l"])?;
        ensure!(left.stdout.trim() == "0", "the hanging command lives on");
        Ok(())
    })
}

#[test]
fn a_workload_cannot_have_its_files_written_elsewhere() -> Result<()> {
    let rules = Rules::client_calls_server().issuer(SHORT);
    Lab::check(&rules, |lab| {
        let home = home(lab)?;
        // What stands for /etc: root's, and nobody else's business.
        let target = lab.dir().join("roots-own");
        fs::create_dir(&target)?;
        with_files(lab, &rules.clone().rule(&files(&home, "")))?;
        wait_for(&home.join("svid/svid.key"))?;
        let before = serial_in(lab, &home.join("svid/svid.pem"))?;
        // RENAME_EXCHANGE: there is always one of the two, the directory or the link to the other.
        let swap = "import ctypes,os,sys,time\nhome,target=sys.argv[1:]\nos.chdir(home)\n\
                    os.symlink(target,'link')\nrename=ctypes.CDLL(None).renameat2\n\
                    end=time.time()+12\nn=0\n\
                    while time.time()<end or n%2:\n  \
                    assert rename(-100,b'svid',-100,b'link',2)==0\n  n+=1\n\
                    os.remove('link')\nprint(f'swaps={n}')\n";
        let pod = lab.b.pod(Group::Outside, uid::SERVER);
        let (from, to) = (home.to_string_lossy(), target.to_string_lossy());
        let swaps = pod.must("/usr/bin/python3", &["-c", swap, &from, &to])?;
        let swaps: u32 = harness::value(&swaps, "swaps").context("no count")?.parse()?;
        ensure!(swaps > 1000, "only {swaps} swaps");
        ensure!(names(&target)?.is_empty(), "written elsewhere: {:?}", names(&target)?);
        let renewed = || {
            let serial = serial_in(lab, &home.join("svid/svid.pem")).ok()?;
            (serial != before).then_some(())
        };
        eventually("files in their place", renewed)?;
        // A link that stays is refused, and said.
        fs::rename(home.join("svid"), home.join("real"))?;
        symlink(&target, home.join("svid"))?;
        not_ready_for(&lab.b, "is a symbolic link")?;
        ensure!(names(&target)?.is_empty(), "written elsewhere: {:?}", names(&target)?);
        Ok(())
    })
}

#[test]
fn a_place_that_is_not_safe_is_told_and_used_once_it_is() -> Result<()> {
    let rules = Rules::client_calls_server();
    Lab::check(&rules, |lab| {
        let home = home(lab)?;
        let place = home.join("svid");
        fs::create_dir(&place)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777))?;
        with_files(lab, &rules.clone().rule(&files(&home, "")))?;
        not_ready_for(&lab.b, "others than its owner can write to it")?;
        ensure!(names(&place)?.is_empty(), "{:?}", names(&place)?);
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
        chown(&place, Some(uid::OTHER), None)?;
        not_ready_for(&lab.b, "belongs to user")?;
        chown(&place, Some(uid::SERVER), None)?;
        wait_for(&place.join("svid.key"))?;
        // A service manager takes the directory of a service that stops away, and makes it again.
        fs::remove_dir_all(&place)?;
        wait_for(&place.join("svid.key"))?;
        // Nobody but the owner can read the key.
        let key = place.join("svid.key");
        let other = lab.b.pod(Group::Outside, uid::OTHER);
        ensure!(other.run("cat", &[&key.to_string_lossy()])?.failed(), "others can read the key");
        let own = lab.b.pod(Group::Outside, uid::SERVER);
        ensure!(own.must("cat", &[&key.to_string_lossy()])?.contains("PRIVATE KEY"));
        Ok(())
    })
}

#[test]
fn a_pid_file_that_names_another_users_process_hurts_nobody() -> Result<()> {
    let rules = Rules::client_calls_server();
    Lab::check(&rules, |lab| {
        let home = home(lab)?;
        let mut victim = lab.b.pod(Group::Outside, uid::OTHER).spawn("sleep", &["600"])?;
        let pid_file = home.join("pid");
        fs::write(&pid_file, victim.pid().to_string())?;
        chown(&pid_file, Some(uid::SERVER), None)?;
        let told = format!("pid_file = \"{}\"\nsignal = \"SIGTERM\"", pid_file.display());
        with_files(lab, &rules.clone().rule(&files(&home, &told)))?;
        not_ready_for(&lab.b, "belongs to user 21003 and not to 21002")?;
        let alive = format!("/proc/{}", victim.pid());
        ensure!(Path::new(&alive).exists(), "the process of another user was signalled");
        victim.kill();
        // A process of the owner is.
        let mut own = lab.b.pod(Group::Outside, uid::SERVER).spawn("sleep", &["600"])?;
        fs::write(&pid_file, own.pid().to_string())?;
        own.wait()?;
        Ok(())
    })
}

#[test]
fn files_of_a_rule_that_went_while_no_daemon_ran_are_removed() -> Result<()> {
    let rules = Rules::client_calls_server();
    Lab::check(&rules, |lab| {
        let home = home(lab)?;
        with_files(lab, &rules.clone().rule(&files(&home, "")))?;
        let key = home.join("svid/svid.key");
        wait_for(&key)?;
        let kept = serial_in(lab, &home.join("svid/svid.pem"))?;
        lab.b.stop();
        ensure!(key.exists(), "a daemon that stops takes the files away");
        lab.b.start()?;
        let fresh = || serial_in(lab, &home.join("svid/svid.pem")).ok().filter(|it| *it != kept);
        eventually("an SVID of the new daemon", fresh)?;
        lab.b.stop();
        lab.b.configure(&rules)?;
        lab.b.start()?;
        let empty = || names(&home.join("svid")).ok().filter(Vec::is_empty);
        eventually("an empty directory", empty)?;
        Ok(())
    })
}

#[test]
fn files_of_an_identity_that_is_denied_are_removed() -> Result<()> {
    let rules = Rules::client_calls_server();
    Lab::check(&rules, |lab| {
        let home = home(lab)?;
        with_files(lab, &rules.clone().rule(&files(&home, "")))?;
        let key = home.join("svid/svid.key");
        wait_for(&key)?;
        lab.b.ask(&["deny", "add", "--spiffe-id", &server_id()])?;
        eventually("an empty directory", || names(&home.join("svid")).ok().filter(Vec::is_empty))?;
        not_ready_for(&lab.b, "server-tls: ")?;
        lab.b.ask(&["deny", "remove", "--spiffe-id", &server_id()])?;
        wait_for(&key)
    })
}
