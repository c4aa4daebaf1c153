//! What is wrong is told: all at once, with line, key, value and remedy.

use super::*;
use crate::policy::{Networks, OutboundAction};
use crate::spiffe::TrustDomain;
use crate::workload::{FailMode, Mode, OtherTransports, ReloadSignal, Told};

const NODE: &str = "[node]\ntrust_domain = \"td\"\n";

fn problems(text: &str) -> String {
    match Files::new(&format!("{NODE}{text}")).load() {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string(),
    }
}

/// The one problem that this text has holds all of these parts.
fn check(text: &str, parts: &[&str]) {
    let told = problems(text);
    assert_eq!(told.lines().count(), 1, "{text}\n{told}");
    for part in parts {
        assert!(told.contains(part), "{text}\n{told}\nlacks {part}");
    }
}

fn good(text: &str) -> Config {
    let loaded = Files::new(&format!("{NODE}{text}")).load();
    loaded.unwrap_or_else(|problems| panic!("{text}\n{problems}")).0
}

#[test]
fn all_problems_are_told_at_once_with_their_lines() {
    let told = problems(
        "state_dri = \"/x\"\n[proxy]\nkeepalive = \"soon\"\nbuffer = \"1KiB\"\n[nope]\n\
         [[scope]]\ncgroup = \"a/../b\"\nmode = \"strickt\"\n[[scope]]\nmode = \"strict\"\n\
         [[entry]]\nspiffe_id = \"spiffe://td/spire/x\"\nselectors = [\"unix:ud:1\", \"a:b:c\"]\n",
    );
    let expected = [
        ":3: node.state_dri: unknown key; perhaps `state_dir` is meant",
        ":5: proxy.keepalive: `soon`: not a duration",
        ":6: proxy.buffer: `1KiB`: out of range; write a value from 4KiB to 4MiB",
        ":7: nope: unknown key",
        ":9: scope[0].cgroup: `a/../b`: is not a path of a cgroup",
        ":10: scope[0].mode: `strickt`: not one of observe, permissive, strict; perhaps strict is",
        ":11: scope[1]: has no cgroup",
        ":14: entry[0].spiffe_id: `spiffe://td/spire/x`: is reserved for SPIRE",
        ":15: entry[0].selectors: `unix:ud:1`: no attestor finds `unix:ud`; perhaps `unix:uid:`",
        ":15: entry[0].selectors: `a:b:c`: no attestor finds `a:b`",
    ];
    for (line, part) in told.lines().zip(expected) {
        assert!(line.contains(part), "{told}\nlacks {part}");
    }
    assert_eq!(told.lines().count(), expected.len(), "{told}");
}

#[test]
fn the_file_as_a_whole() {
    let path = Path::new("/nonexistent/tacit.toml");
    assert!(load(path).unwrap_err().to_string().contains("cannot be read"));
    let told = Files::new("").load().unwrap_err().to_string();
    assert!(told.contains("node.trust_domain: is missing; add a table [node]"), "{told}");
    check("[proxy\n", &["not TOML", ":3"]);
    check("[[log]]\nlevel = \"info\"\n", &["log: must be a table; write it as a table"]);
    check("[scope]\nmode = \"strict\"\n", &["scope: must be a list of tables", "[[scope]]"]);
}

#[test]
fn what_an_entry_has_beside_its_identity() {
    let entry = |line: &str| {
        format!("[[entry]]\nspiffe_id = \"spiffe://td/x\"\nselectors = [\"unix:uid:1\"]\n{line}\n")
    };
    check(&entry("svid_ttl = \"8days\""), &["entry[0].svid_ttl", "10s to 7days"]);
    check(&entry("jwt_svid_ttl = \"2days\""), &["entry[0].jwt_svid_ttl", "10s to 1day"]);
    check(&entry("hint = \"\""), &["entry[0].hint", "1 to 1024 bytes"]);
    check(&entry("hint = \"a\\nb\""), &["entry[0].hint"]);
    check(&entry("dns_names = []"), &["entry[0].dns_names", "an empty list"]);
    for bad in ["*.example.org", "Web", "a b", "a..b", "a.", ""] {
        check(&entry(&format!("dns_names = [\"{bad}\"]")), &["entry[0].dns_names", "DNS name"]);
    }
    check(&entry("federates_with = [\"td\"]"), &["entry[0].federates_with", "own trust domain"]);
    let path = "federates_with = [\"spiffe://other\"]";
    check(&entry(path), &["entry[0].federates_with", "bare name"]);
    let lines = "hint = \"in\"\ndns_names = [\"a.b\", \"c\"]\nfederates_with = [\"other\"]\njwt_svid_ttl = \"1m\"";
    let config = good(&entry(lines));
    let entry = &config.registry.entries()[0];
    assert_eq!((entry.hint.as_str(), entry.dns_names.len()), ("in", 2));
    assert_eq!(entry.jwt_svid_ttl, Some(std::time::Duration::from_mins(1)));
    assert_eq!(entry.federates_with.iter().map(TrustDomain::as_str).collect::<Vec<_>>(), ["other"]);
}

#[test]
fn settings_have_ranges() {
    check("name = \"a b\"\n", &["node.name", "`a b`"]);
    check("state_dir = \"var/x\"\n", &["node.state_dir", "absolute"]);
    check("run_dir = \"/run/../x\"\n", &["node.run_dir", "absolute"]);
    check("include_dir = \"nowhere\"\n", &["node.include_dir", "cannot be listed", "create"]);
    check("[issuer]\nkind = \"spire-agent\"\n", &["issuer.kind", "this version does not have"]);
    check(
        "[issuer]\nsvid_ttl = \"1s\"\n",
        &["issuer.svid_ttl: `1s`: out of range", "10s to 7days"],
    );
    check("[issuer]\nsvid_ttl = 3600\n", &["issuer.svid_ttl: `3600`", "text with a unit"]);
    check("[proxy]\ninbound_port = 0\n", &["proxy.inbound_port: `0`: out of range"]);
    check("[proxy]\ninbound_port = 70000\n", &["proxy.inbound_port: `70000`"]);
    check("[proxy]\ninbound_port = 15001\n", &["the same as proxy.outbound_port"]);
    check("[proxy]\nmin_version = \"1.2\"\n", &["proxy.min_version: unknown key"]);
    check("[audit]\nobserve = \"yes\"\n", &["audit.observe: `yes`"]);
    check("[admin]\nmetrics_listen = \"0.0.0.0:1\"\n", &["no loopback address"]);
    check(
        "[[outbound]]\nto = [\"10.0.0.1/8\"]\naction = \"refuse\"\n",
        &["10.0.0.0/8 for the network or 10.0.0.1 for"],
    );
    check(
        "[[scope]]\ncgroup = \"/a\"\nmode = \"strict\"\n[capture]\ncgroup = \"/b\"\n",
        &["outside"],
    );
    let config = good("[admin]\nmetrics_enabled = false\n[proxy]\nmax_connections = 5\n");
    assert_eq!(config.admin.metrics_listen, None);
    assert_eq!(config.proxy.max_connections_per_workload, 5);
}

#[test]
fn scopes() {
    let strict = "[[scope]]\ncgroup = \"/a\"\nmode = \"strict\"\n";
    check(
        &format!("{strict}inbound_ports = [1]\n"),
        &["inbound_ports", "leaves no port out", "rule"],
    );
    check(&format!("{strict}outbound_ports = [1]\n"), &["outbound_ports", "leaves no port out"]);
    check(&format!("{strict}user = \"no-such-user-1\"\n"), &["user", "no such user on this host"]);
    check(
        &format!("{strict}fail = \"open\"\n"),
        &["scope[0].fail: `open`", "never open", "remove"],
    );
    check(&format!("{strict}{strict}"), &["the same cgroup and user"]);
    check("[[scope]]\ncgroup = \"/a\"\nmode = \"observe\"\ninbound_ports = []\n", &["empty list"]);
    check("[[scope]]\ncgroup = \"/a\"\nmode = \"observe\"\ninbound_ports = [\"9-8\"]\n", &["9-8"]);
    for bad in ["a", "/a/../b", "/a//b", "/./a", "//"] {
        check(&format!("[[scope]]\ncgroup = \"{bad}\"\nmode = \"strict\"\n"), &["not a path"]);
    }
    let config = good(&format!(
        "{strict}inbound_ports = \"all\"\n[[scope]]\ncgroup = \"/a/\"\nuser = \"root\"\n\
         mode = \"permissive\"\noutbound_ports = [443, \"8000-8100\"]\n[[scope]]\ncgroup = \"/\"\n\
         user = 1000\nmode = \"observe\"\nfail = \"closed\"\n"
    ));
    let scope = |index: usize| {
        let scope = &config.scopes[index];
        (scope.cgroup.as_str(), scope.uid, scope.mode, scope.fail, scope.other_transports)
    };
    let (dns, all) = (OtherTransports::DnsOnly, OtherTransports::Allow);
    assert_eq!(scope(0), ("/a", None, Mode::Strict, FailMode::Closed, dns));
    assert_eq!(scope(1), ("/a", Some(0), Mode::Permissive, FailMode::Open, all));
    assert_eq!(scope(2), ("/", Some(1000), Mode::Observe, FailMode::Closed, all));
    assert!(config.scopes[1].outbound_ports.contains(8050));
}

#[test]
fn scopes_that_the_kernel_cannot_hold() {
    let scope = |cgroup: &str, more: &str| {
        format!("[[scope]]\ncgroup = \"{cgroup}\"\nmode = \"observe\"\n{more}")
    };
    let list = |count: u16| (0..count).map(|n| 1000 + 2 * n).collect::<Vec<_>>();
    for key in ["inbound_ports", "outbound_ports"] {
        let ports = |count| format!("{key} = {:?}\n", list(count));
        let told = [&format!("scope[0].{key}: `["), "more than 8 ports and ranges", "join some"];
        check(&scope("/a", &ports(9)), &told);
        good(&scope("/a", &ports(8)));
    }
    check(&scope(&format!("/{}", "a".repeat(255)), ""), &[":4: scope[0].cgroup", "than 255 bytes"]);
    good(&scope(&format!("/{}", "a".repeat(254)), ""));
    check(&scope(&"/a".repeat(32), ""), &["scope[0].cgroup", "deeper than 31 levels", "above it"]);
    good(&scope(&"/a".repeat(31), ""));
    let users = |count: u32| {
        (0..count).map(|uid| scope("/a", &format!("user = {uid}\n"))).collect::<String>()
    };
    check(&users(9), &["scope[8].cgroup: `/a`", "for 8 users", "cgroups of their own"]);
    good(&users(8));
    let many = |count: u32| (0..count).map(|n| scope(&format!("/a/{n}"), "")).collect::<String>();
    check(&many(1024), &["scope[1023].cgroup", "more than 1023 scopes", "merge some"]);
    assert_eq!(good(&many(1023)).scopes.len(), 1023);
}

#[test]
fn entries() {
    let entry = |id: &str, selectors: &str| {
        format!("[[entry]]\nspiffe_id = \"{id}\"\nselectors = [{selectors}]\n")
    };
    let uid = "\"unix:uid:1\"";
    check(&entry("spiffe://other/a", uid), &["another trust domain", "spiffe://td/"]);
    check(&entry("spiffe://td", uid), &["names no workload"]);
    check(&entry("spiffe://td/spire", uid), &["reserved for SPIRE"]);
    check(&entry("td/a", uid), &["is not a SPIFFE ID"]);
    let twice = entry("spiffe://td/a", uid).repeat(2);
    check(&twice, &["entry[1]: entry id", "is already used at", "give it another id"]);
    check(&entry("spiffe://td/a", ""), &["entry[0].selectors", "match every process"]);
    check("[[entry]]\nselectors = [\"unix:uid:1\"]\n", &["entry[0]: has no spiffe_id"]);
    let text = entry("spiffe://td/a", "\"unix:uid:1\", \"unix:path:/a\"");
    let ttl = format!("{text}svid_ttl = \"1s\"\n");
    check(&ttl, &["entry[0].svid_ttl: `1s`: out of range"]);
    let config = good(&text);
    let entries = config.registry.entries();
    assert_eq!(entries[0].id.len(), 32);
    // The order in which selectors are written does not matter.
    let other = good(&entry("spiffe://td/a", "\"unix:path:/a\", \"unix:uid:1\""));
    assert_eq!(entries[0].id, other.registry.entries()[0].id);
    assert!(entries[0].origin.ends_with("tacit.toml:3"), "{}", entries[0].origin);
}

#[test]
fn outbound_rules() {
    let rule = |text: &str| format!("[[outbound]]\naction = \"mtls\"\n{text}\n");
    let peers = "peers = [\"spiffe://td/*\"]";
    check(&rule(""), &["outbound[0]: does not say whom", "spiffe://<trust domain>/*"]);
    good(&rule("peers = [\"spiffe://td2/a\"]"));
    let workloads = format!("{peers}\nworkloads = [\"spiffe://td2/a\"]");
    check(&rule(&workloads), &["workloads: `spiffe://td2/a`", "another trust domain"]);
    check(&rule("peers = [\"spiffe://td/a*\"]"), &["`spiffe://td/a*`", "may only stand"]);
    check(&rule("peers = []"), &["an empty list"]);
    check(&rule(&format!("{peers}\nto = []")), &["outbound[0].to", "an empty list"]);
    check(
        &rule(&format!("{peers}\nto = [\"db\"]")),
        &["neither an address nor a network", "hosts"],
    );
    check(&rule(&format!("{peers}\nto = [\"10.0.0.1/8\"]")), &["bits set behind its prefix"]);
    check(&rule(&format!("{peers}\nhosts = [\"10.0.0.1\"]")), &["is not a host name", "`to`"]);
    check(&rule(&format!("{peers}\nhosts = [\"gone.example.org\"]")), &["no such name"]);
    check(&rule(&format!("{peers}\nhosts = [\"empty.example.org\"]")), &["no addresses"]);
    check(&rule(&format!("{peers}\nhosts = [\"slow.example.org\"]")), &["no answer within 300ms"]);
    check(&rule(&format!("{peers}\nalpn = [\"\"]")), &["is no ALPN protocol"]);
    check(&rule(&format!("{peers}\nalpn = [\"{}\"]", "a".repeat(256))), &["is no ALPN protocol"]);
    check(&rule(&format!("{peers}\nsni = \"10.0.0.1\"")), &["cannot be sent"]);
    check(&rule(&format!("{peers}\nname = \"default\"")), &["choose another name"]);
    check(&rule(&format!("{peers}\nname = \"a\\nb\"")), &["`a\\nb`", "is no name"]);
    check(&rule(&format!("{peers}\nname = \"x\"")).repeat(2), &["has the same name"]);
    check("[[outbound]]\naction = \"plaintext\"\nsni = \"a\"\n", &["means nothing without mTLS"]);
    check("[[outbound]]\nports = 1\n", &["has no action", "say action ="]);
    let config = good(&rule(&format!(
        "{peers}\nhosts = [\"db.example.org\"]\nto = [\"192.0.2.1\"]\nalpn = [\"h2\"]\nsni = \"a.b\""
    )));
    let rule = &config.outbound[0];
    assert_eq!(&*rule.name, "outbound[0]");
    let Networks::Of(to) = &rule.to else { panic!("{rule:?}") };
    let to: Vec<_> = to.iter().map(ToString::to_string).collect();
    assert_eq!(to, ["192.0.2.1/32", "10.0.0.8/32", "10.0.0.9/32"]);
    assert!(
        matches!(&rule.action, OutboundAction::Mtls { sni: Some(name), .. } if &**name == "a.b")
    );
}

#[test]
fn inbound_rules() {
    let rule = |text: &str| format!("[[inbound]]\naction = \"allow\"\n{text}\n");
    check(&rule(""), &["inbound[0]: does not say whom it admits"]);
    check(&rule("peers = [\"spiffe://td\"]"), &["names no workload"]);
    check(&rule("plaintext = \"yes\""), &["not one of admit, refuse"]);
    check("[[inbound]]\naction = \"deny\"\nplaintext = \"refuse\"\n", &["in a denying rule"]);
    check("[[inbound]]\naction = \"deny\"\nfrom = []\n", &["inbound[0].from", "an empty list"]);
    check("[[inbound]]\npeers = [\"spiffe://td/*\"]\n", &["has no action"]);
    let config = good(&rule("plaintext = \"admit\"\nfrom = [\"10.0.0.0/8\"]"));
    assert_eq!(&*config.inbound[0].name, "inbound[0]");
    assert_eq!(config.policy().inbound, config.inbound);
}

#[test]
fn svids_in_files() {
    let entry =
        "[[entry]]\nid = \"a\"\nspiffe_id = \"spiffe://td/a\"\nselectors = [\"unix:uid:1\"]\n";
    let files = |text: &str| format!("{entry}[[files]]\n{text}\n");
    let whole = "spiffe_id = \"spiffe://td/a\"\ndirectory = \"/run/a\"\nowner = \"4711:4712\"\n";
    let with = |text: &str| files(&format!("{whole}{text}"));
    let config = good(&with("command = [\"/bin/true\"]\ncommand_timeout = \"1s\""));
    let set = &config.files[0];
    assert_eq!((&*set.name, &*set.entry), ("files[0]", "a"));
    assert_eq!((set.owner.uid, set.owner.gid), (4711, 4712));
    assert!(matches!(&set.told, Told::Command { timeout, .. } if timeout.as_secs() == 1));
    let config = good(&with("pid_file = \"/run/a.pid\""));
    assert!(matches!(config.files[0].told, Told::Signal { signal: ReloadSignal::Hup, .. }));
    assert_eq!(good(&with("key = \"svid.pem\"")).files[0].key, "svid.pem");

    let without = |key: &str| {
        let lines = whole.lines().filter(|line| !line.starts_with(key)).collect::<Vec<_>>();
        files(&lines.join("\n"))
    };
    check(&without("spiffe_id"), &["files[0]: does not say whose SVID"]);
    check(&without("directory"), &["files[0]: has no directory"]);
    check(&without("owner"), &["files[0]: has no owner"]);
    let other = with("").replace("td/a\"\ndir", "td/b\"\ndir");
    check(&other, &["files[0].spiffe_id: `spiffe://td/b`: no entry of the configuration gives"]);
    check(&with("entry = \"b\""), &["files[0].entry: `b`: no entry"]);
    check(&with("directory = \"run\"").replacen("directory = \"/run/a\"\n", "", 1), &["absolute"]);
    let root = with("").replace("/run/a", "/");
    check(&root, &["files[0].directory", "cannot hold the files"]);
    check(&with("key = \"../x\""), &["files[0].key: `../x`: is no name of a file"]);
    check(&with("key = \"bundle.pem\""), &["the bundle has the name of another file"]);
    check(&with("").replace("4711:4712", "nobody-here"), &["no such user on this host"]);
    check(&with("").replace("4711:4712", "4711"), &["files[0].owner", "its group is not known"]);
    check(&with("signal = \"SIGHUP\""), &["files[0].signal: `SIGHUP`: would reach nobody"]);
    check(&with("pid_file = \"/a\"\nsignal = \"SIGKILL\""), &["not one of SIGHUP"]);
    check(&with("command = [\"reload\"]"), &["does not begin with an absolute path"]);
    check(&with("command = [\"/a\"]\ncommand_timeout = \"1h\""), &["out of range"]);
    check(&with("pid_file = \"/a\"\ncommand = [\"/a\"]"), &["tells its program twice"]);
    let twice = format!("{}[[files]]\n{whole}", with(""));
    check(&twice, &["files[1]: the files at", "are in the same directory"]);
}

#[test]
fn included_files() {
    let files = Files::new("[node]\ntrust_domain = \"td\"\ninclude_dir = \"conf.d\"\n");
    let rule = "[[outbound]]\naction = \"refuse\"\nports = 25\n";
    files.write("conf.d/20-b.toml", rule);
    files.write("conf.d/10-a.toml", rule);
    files.write("conf.d/.hidden.toml", "not toml");
    files.write("conf.d/README", "not toml");
    let names: Vec<_> =
        files.load().unwrap().0.outbound.iter().map(|rule| rule.name.to_string()).collect();
    assert_eq!(names, ["10-a/outbound[0]", "20-b/outbound[0]"]);
    files.write("conf.d/20-b.toml", "[proxy]\nkeepalive = \"1m\"\n");
    let told = files.load().unwrap_err().to_string();
    assert!(told.contains("conf.d/20-b.toml:1: proxy: an included file holds"), "{told}");
}

#[test]
fn warnings() {
    let report = |text: &str| {
        let files = Files::new(&format!("{NODE}{text}"));
        let report = check::check_with(&files.main(), &names());
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        report.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let entry = |id: &str, selector: &str| {
        format!("[[entry]]\nspiffe_id = \"spiffe://td/{id}\"\nselectors = [\"{selector}\"]\n")
    };
    let told = report(&entry("a", "unix:path:/bin/a"));
    assert!(told[0].contains("entry[0]: any user can run a program"), "{told:?}");
    let told = report(&(entry("a", "unix:uid:1") + &entry("b", "unix:uid:1")));
    assert!(told[0].contains("same selectors"), "{told:?}");
    let told = report(
        "[[outbound]]\naction = \"plaintext\"\nports = 25\n[[outbound]]\naction = \"refuse\"\n",
    );
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("outbound[0]: the rule never decides: `outbound[1]`"), "{told:?}");
    let told = report(
        "[[inbound]]\naction = \"deny\"\n[[inbound]]\naction = \"allow\"\npeers = [\"spiffe://td/*\"]\n",
    );
    assert!(told[0].contains("inbound[1]: the rule never admits: `inbound[0]`"), "{told:?}");
    assert_eq!(report(&entry("a", "unix:uid:1")), Vec::<String>::new());
    let foreign = "[[outbound]]\naction = \"mtls\"\npeers = [\"spiffe://other/*\"]\n";
    let told = report(foreign);
    assert!(told[0].contains("names peers of other, and no entry is federated"), "{told:?}");
    let federated = format!("{foreign}{}federates_with = [\"other\"]\n", entry("a", "unix:uid:1"));
    assert_eq!(report(&federated), Vec::<String>::new());
    let scope = |cgroup: &str, mode: &str| {
        report(&format!("[[scope]]\ncgroup = \"{cgroup}\"\nmode = \"{mode}\"\n"))
    };
    let told = scope("/", "strict");
    assert!(told[0].contains(":4: scope[0].cgroup: `/`: every program of this host"), "{told:?}");
    assert_eq!((scope("/", "permissive"), scope("/a", "strict")), (Vec::new(), Vec::new()));
}

#[test]
fn relationships_with_other_trust_domains() {
    let table = |more: &str| format!("[[federates_with]]\n{more}\n");
    let web = |more: &str| {
        table(&format!(
            "trust_domain = \"other\"\nurl = \"https://a.test:8443/x\"\nprofile = \"https_web\"\n{more}"
        ))
    };
    let told = problems(&table(""));
    assert!(
        ["trust_domain", "url", "profile"]
            .iter()
            .all(|key| told.contains(&format!("has no {key}")))
    );
    check(
        &web("").replace("\"other\"", "\"td\""),
        &["federates_with[0].trust_domain", "own trust domain"],
    );
    check(&web("").replace("\"other\"", "\"Other\""), &["is no trust domain"]);
    for (url, why) in [
        ("http://a.test/", "does not begin with https://"),
        ("https://u:p@a.test/", "has user information"),
        ("a.test", "does not begin with https://"),
        ("https://", "is no URL"),
    ] {
        let text = web("").replace("https://a.test:8443/x", url);
        check(&text, &["federates_with[0].url", why]);
    }
    let spiffe = |more: &str| web(more).replace("https_web", "https_spiffe");
    check(&spiffe(""), &["has no endpoint_spiffe_id"]);
    let id = |id: &str| spiffe(&format!("endpoint_spiffe_id = \"{id}\""));
    check(&id("spiffe://other"), &["endpoint_spiffe_id: `spiffe://other`: has no path"]);
    check(&id("other/x"), &["is not a SPIFFE ID"]);
    check(
        &web("bundle = \"none.json\""),
        &["federates_with[0].bundle", "none.json cannot be read"],
    );
    check(&web("authorities = \"tacit.toml\""), &["authorities", "holds no certificates in PEM"]);
    check(&[web(""), web("")].concat(), &["federates_with[1]", "other has one already at"]);
    let config = good(&id("spiffe://other/spire/server"));
    let relationship = &config.relationships[0];
    assert!(relationship.origin.ends_with("tacit.toml:3"), "{}", relationship.origin);
    assert_eq!(relationship.profile.as_str(), "https_spiffe");
}

#[test]
fn endpoints_that_anybody_may_ask() {
    let endpoint = |more: &str| format!("[bundle_endpoint]\nlisten = \"0.0.0.0:8443\"\n{more}\n");
    let told = problems(&endpoint("profile = \"https_web\""));
    assert!(
        ["certificate", "key"]
            .iter()
            .all(|key| told.contains(&format!("needs bundle_endpoint.{key}")))
    );
    check(&endpoint("spiffe_id = \"spiffe://other/x\""), &["another trust domain"]);
    check(&endpoint("spiffe_id = \"spiffe://td\""), &["has no path"]);
    check("[bundle_endpoint]\nlisten = \"8443\"\n", &["is not an address and port"]);
    good(&endpoint(""));
    let oidc = |more: &str| format!("[oidc]\nissuer = \"https://a.test/b\"\n{more}\n");
    check(&oidc("listen = \"0.0.0.0:8444\""), &["in the clear where others can hear it"]);
    let half = "listen = \"127.0.0.1:8444\"\ncertificate = \"/a.pem\"";
    check(&oidc(half), &["one of oidc.certificate and oidc.key only"]);
    good(&oidc("listen = \"127.0.0.1:8444\""));
    for issuer in
        ["http://a.test", "https://", "https://a.test/", "https://a.test?x", "https://a b"]
    {
        check(&format!("[oidc]\nissuer = \"{issuer}\"\n"), &["oidc.issuer", "is no issuer"]);
    }
}
