//! Stock programs across the wire, unchanged and unaware. Each is exercised by one function, which
//! also checks that both ends see true addresses; it runs once with no daemon (the control run, in
//! which the marker does cross the wire) and once protected.

use anyhow::{Result, ensure};
use harness::{Group, Lab, MariaDb, Nginx, Pod, Postgres, Redis, Rules, protected, user_id, value};

const MARKER: &str = "c0ffee-secret-of-the-programs";

/// Where `PostgreSQL` lives: it wants a user with a name.
fn postgres_pod(lab: &Lab) -> Result<Pod> {
    Ok(lab.b.pod(Group::Strict, user_id("postgres")?))
}

fn curl(lab: &Lab, ip: &str) -> Result<()> {
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let format = "local=%{local_ip}:%{local_port} %{remote_ip} %{remote_port}";
    let url = format!("http://{host}:8080/");
    let said = lab.client().must("curl", &["-gsS", "-m", "20", "-w", format, &url])?;
    ensure!(said.contains(MARKER), "curl got: {said}");
    ensure!(said.ends_with(&format!(" {ip} 8080")), "curl saw: {said}");
    // nginx and curl name the client's address alike, although they sit on two hosts.
    let (client, local) = (value(&said, "client"), value(&said, "local"));
    ensure!(client.is_some() && client == local, "{client:?} is not {local:?}");
    Ok(())
}

fn redis(lab: &Lab) -> Result<()> {
    let client = lab.client();
    let cli = |words: &[&str]| {
        client.must("redis-cli", &[&["-h", lab.b.ip, "-p", "6379"], words].concat())
    };
    ensure!(cli(&["set", "key", MARKER])?.trim() == "OK");
    ensure!(cli(&["get", "key"])?.trim() == MARKER);
    let list = cli(&["client", "list"])?;
    ensure!(list.contains(&format!("addr={}:", lab.a.ip)), "redis saw: {list}");
    ensure!(list.contains(&format!("laddr={}:6379", lab.b.ip)), "redis saw: {list}");
    Ok(())
}

fn psql(lab: &Lab, postgres: &Postgres) -> Result<()> {
    let query = format!("select '{MARKER}', inet_client_addr(), inet_server_addr()");
    let words = ["-h", lab.b.ip, "-p", "5432", "-U", "postgres", "-At", "-c", &query, "postgres"];
    let said = lab.client().must(postgres.programs.join("psql"), &words)?;
    let expected = format!("{MARKER}|{}|{}", lab.a.ip, lab.b.ip);
    ensure!(said.trim() == expected, "psql got: {said}");
    Ok(())
}

/// Each transaction on a connection of its own (-C), eight at once.
fn pgbench(lab: &Lab, postgres: &Postgres) -> Result<()> {
    let run = |words: &[&str]| {
        let to = ["-h", lab.b.ip, "-p", "5432", "-U", "postgres"];
        let words = [&to[..], words, &["postgres"]].concat();
        lab.client().must(postgres.programs.join("pgbench"), &words)
    };
    run(&["-i", "-q"])?;
    let said = run(&["-C", "-c", "8", "-j", "2", "-t", "25", "-n"])?;
    ensure!(said.contains("number of transactions actually processed: 200/200"), "{said}");
    Ok(())
}

fn mariadb(lab: &Lab) -> Result<()> {
    let query = format!("select '{MARKER}', host from information_schema.processlist");
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
    ensure!(said.contains(MARKER) && said.contains(lab.a.ip), "mariadb got: {said}");
    Ok(())
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
    let exercises: [(&str, &dyn Fn() -> Result<()>); 5] = [
        ("curl", &|| curl(&lab, lab.b.ip)),
        ("curl over IPv6", &|| curl(&lab, lab.b.ip6)),
        ("redis", &|| redis(&lab)),
        ("psql", &|| psql(&lab, &postgres)),
        ("mariadb", &|| mariadb(&lab)),
    ];
    for (name, exercise) in exercises {
        let capture = lab.a.capture("control")?;
        exercise()?;
        let packets = capture.stop()?;
        ensure!(packets.contain(MARKER.as_bytes()), "{name}: the search misses what is there");
        ensure!(!packets.hold_tls(), "{name}: the search finds TLS where there is none");
    }
    pgbench(&lab, &postgres)
}

#[test]
fn curl_and_nginx() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _nginx = Nginx::start(&lab.server(), 8080, MARKER)?;
        for ip in [lab.b.ip, lab.b.ip6] {
            let claim = protected(lab, MARKER, || curl(lab, ip))?;
            ensure!(claim.outbound.field("process.exe").ends_with("/curl"));
            ensure!(claim.inbound.field("process.exe").ends_with("/nginx"));
        }
        Ok(())
    })
}

#[test]
fn redis_set_and_get() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _redis = Redis::start(&lab.server(), 6379)?;
        let claim = protected(lab, MARKER, || redis(lab))?;
        ensure!(claim.inbound.field("process.exe").contains("redis"));
        Ok(())
    })
}

#[test]
fn postgres_with_psql_and_pgbench() -> Result<()> {
    let rules = Rules::client_calls_server().also("server", &["unix:user:postgres"]);
    Lab::check(&rules, |lab| {
        let postgres = Postgres::start(&postgres_pod(lab)?, 5432)?;
        protected(lab, MARKER, || psql(lab, &postgres))?;
        pgbench(lab, &postgres)
    })
}

#[test]
fn mariadb_speaks_first() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _mariadb = MariaDb::start(&lab.server(), 3306)?;
        protected(lab, MARKER, || mariadb(lab))?;
        Ok(())
    })
}
