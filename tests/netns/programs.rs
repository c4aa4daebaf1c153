//! Stock programs across the wire, unchanged and unaware. Each is exercised by one function, which
//! also checks that both ends see true addresses; it runs once with no daemon (the control run, in
//! which the marker does cross the wire) and once protected.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use harness::{
    Claim, Group, Lab, MariaDb, Nginx, Pod, Postgres, Redis, Rules, Seen, protected, user_id, value,
};

const MARKER: &str = "c0ffee-secret-of-the-programs";
/// What `MariaDB` says first holds its version.
const GREETING: &str = "-MariaDB";

/// Where `PostgreSQL` lives: it wants a user with a name.
fn postgres_pod(lab: &Lab) -> Result<Pod> {
    Ok(lab.b.pod(Group::Strict, user_id("postgres")?))
}

/// `ip:port` as the records write it; IPv6 comes without brackets.
fn address(text: &str) -> Result<String> {
    let (ip, port) = text.rsplit_once(':').context("no port")?;
    Ok(SocketAddr::new(ip.parse()?, port.parse()?).to_string())
}

fn curl(lab: &Lab, ip: &str) -> Result<Seen> {
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let format = "local=%{local_ip}:%{local_port} peer=%{remote_ip}:%{remote_port}";
    let url = format!("http://{host}:8080/");
    let said = lab.client().must("curl", &["-gsS", "-m", "20", "-w", format, &url])?;
    ensure!(said.contains(MARKER), "curl got: {said}");
    ensure!(said.ends_with(&format!("peer={ip}:8080")), "curl saw: {said}");
    let seen = |name| Ok::<_, anyhow::Error>(vec![address(&value(&said, name).context(name)?)?]);
    Ok(Seen {
        client_own: seen("local")?,
        client_peer: seen("peer")?,
        server_peer: seen("client")?,
        server_own: seen("server")?,
    })
}

/// On one connection, which redis lists.
fn redis(lab: &Lab) -> Result<Seen> {
    let line = format!(
        "printf 'set key {MARKER}\\nget key\\nclient list\\n' | redis-cli -h {} -p 6379",
        lab.b.ip
    );
    let said = lab.client().must("sh", &["-c", &line])?;
    ensure!(said.starts_with(&format!("OK\n{MARKER}\n")), "redis-cli got: {said}");
    let seen = |name| value(&said, name).map(|it| vec![it]).context("no address");
    Ok(Seen { server_peer: seen("addr")?, server_own: seen("laddr")?, ..Seen::default() })
}

fn psql(lab: &Lab, postgres: &Postgres) -> Result<Seen> {
    let query = format!(
        "select '{MARKER}', 'client=' || host(inet_client_addr()) || ':' || inet_client_port(), \
         'server=' || host(inet_server_addr()) || ':' || inet_server_port()"
    );
    let words = ["-h", lab.b.ip, "-p", "5432", "-U", "postgres", "-AtF ", "-c", &query, "postgres"];
    let said = lab.client().must(postgres.programs.join("psql"), &words)?;
    ensure!(said.starts_with(MARKER), "psql got: {said}");
    let seen = |name| value(&said, name).map(|it| vec![it]).context("no address");
    Ok(Seen { server_peer: seen("client")?, server_own: seen("server")?, ..Seen::default() })
}

/// Each transaction on a connection of its own (-C), eight at once. The server logs every client.
fn pgbench(lab: &Lab, postgres: &Postgres) -> Result<Seen> {
    let log = || postgres.server.all_said();
    let before = log().len();
    let script = lab.dir().join("transaction.sql");
    std::fs::write(&script, format!("select count(*), '{MARKER}' from pgbench_accounts;\n"))?;
    let run = |words: &[&str]| {
        let to = ["-h", lab.b.ip, "-p", "5432", "-U", "postgres"];
        let words = [&to[..], words, &["postgres"]].concat();
        lab.client().must(postgres.programs.join("pgbench"), &words)
    };
    run(&["-i", "-q"])?;
    let script = script.to_string_lossy();
    let said = run(&["-C", "-c", "8", "-j", "2", "-t", "25", "-n", "-f", &script])?;
    ensure!(said.contains("number of transactions actually processed: 200/200"), "{said}");
    let log = log();
    let mut server_peer = Vec::new();
    for line in log.get(before..).unwrap_or_default().lines() {
        if line.contains("connection received: host=") && !line.contains("[local]") {
            let of = |name| value(line, name).context("no address");
            server_peer.push(format!("{}:{}", of("host")?, of("port")?));
        }
    }
    ensure!(server_peer.len() > 200, "the server saw: {server_peer:?}");
    Ok(Seen { server_peer, ..Seen::default() })
}

fn mariadb(lab: &Lab) -> Result<Seen> {
    let query = format!(
        "select '{MARKER}', concat('client=', host) from information_schema.processlist \
         where id = connection_id()"
    );
    let said = lab.client().must(
        "mariadb",
        &[
            "--no-defaults",
            "--skip-ssl",
            "-N",
            "-h",
            lab.b.ip,
            "-P",
            "3306",
            "-u",
            "app",
            "-e",
            &query,
        ],
    )?;
    ensure!(said.contains(MARKER), "mariadb got: {said}");
    let client = value(&said, "client").context("no address")?;
    Ok(Seen { server_peer: vec![client], ..Seen::default() })
}

/// With no daemon all of it works too, sees the same addresses, and the marker crosses the wire:
/// the search for it can fail, and what the programs see is no work of Tacit's.
#[test]
fn control_run_without_daemons() -> Result<()> {
    let lab = Lab::without_daemons()?;
    let _nginx = Nginx::start(&lab.server(), 8080, MARKER)?;
    let _redis = Redis::start(&lab.server(), 6379)?;
    let postgres = Postgres::start(&postgres_pod(&lab)?, 5432)?;
    let _mariadb = MariaDb::start(&lab.server(), 3306)?;
    let exercises: [(&str, &dyn Fn() -> Result<Seen>); 6] = [
        ("curl", &|| curl(&lab, lab.b.ip)),
        ("curl over IPv6", &|| curl(&lab, lab.b.ip6)),
        ("redis", &|| redis(&lab)),
        ("psql", &|| psql(&lab, &postgres)),
        ("pgbench", &|| pgbench(&lab, &postgres)),
        ("mariadb", &|| mariadb(&lab)),
    ];
    for (name, exercise) in exercises {
        let capture = lab.a.capture_bulk("control")?;
        exercise().and_then(|seen| seen.agree()).context(name)?;
        let packets = capture.stop()?;
        ensure!(packets.contain(MARKER.as_bytes()), "{name}: the search misses what is there");
        ensure!(!packets.hold_tls(), "{name}: the search finds TLS where there is none");
        if name == "mariadb" {
            ensure!(packets.contain(GREETING.as_bytes()), "the search misses the greeting");
        }
    }
    Ok(())
}

#[test]
fn curl_and_nginx() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _nginx = Nginx::start(&lab.server(), 8080, MARKER)?;
        for ip in [lab.b.ip, lab.b.ip6] {
            for pair in protected(lab, MARKER, || curl(lab, ip))? {
                ensure!(pair.outbound.field("process.exe").ends_with("/curl"));
                ensure!(pair.inbound.field("process.exe").ends_with("/nginx"));
            }
        }
        Ok(())
    })
}

#[test]
fn redis_set_and_get() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _redis = Redis::start(&lab.server(), 6379)?;
        for pair in protected(lab, MARKER, || redis(lab))? {
            ensure!(pair.inbound.field("process.exe").contains("redis"));
        }
        Ok(())
    })
}

#[test]
fn postgres_with_psql_and_pgbench() -> Result<()> {
    let rules = Rules::client_calls_server().also("server", &["unix:user:postgres"]);
    Lab::check(&rules, |lab| {
        let postgres = Postgres::start(&postgres_pod(lab)?, 5432)?;
        protected(lab, MARKER, || psql(lab, &postgres))?;
        let claim = Claim::of(MARKER).and("pgbench_accounts").bulk();
        protected(lab, claim, || pgbench(lab, &postgres))?;
        Ok(())
    })
}

#[test]
fn mariadb_speaks_first() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _mariadb = MariaDb::start(&lab.server(), 3306)?;
        protected(lab, Claim::of(MARKER).and(GREETING), || mariadb(lab))?;
        Ok(())
    })
}
