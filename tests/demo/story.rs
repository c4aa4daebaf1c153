//! What the demo tells, in order.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use harness::{Group, Lab, Nginx, Node, Record, Redis, Rules, client_id, server_id, uid, value};

use crate::page::{Page, hexdump};

const SECRET: &str = "the-recipe-is-seven-herbs";

/// Tells it from beginning to end.
pub(crate) fn tell() -> Result<()> {
    let mut page = Page::new();
    println!("Tacit: mutual TLS by SPIFFE identity, between programs that know nothing of it.");
    let began = Instant::now();
    let lab = two_nodes(&mut page)?;
    let nginx = Nginx::start(&lab.server(), 8080, SECRET)?;
    nobody_notices(&mut page, &lab, &nginx)?;
    the_wire(&mut page, &lab)?;
    redis_too(&mut page, &lab)?;
    the_records(&mut page, &lab)?;
    a_refusal(&mut page, &lab)?;
    without_daemon(&mut page, &lab)?;
    page.section("The end");
    drop(nginx);
    drop(lab);
    page.text("Both nodes, their daemons and everything they had put into the kernel are gone.");
    page.text(&format!("It took {:.1} s.", began.elapsed().as_secs_f64()));
    Ok(())
}

fn two_nodes(page: &mut Page) -> Result<Lab> {
    page.section("Two nodes");
    page.text(
        "Two network namespaces with a wire between them, a daemon on each. Their authorities",
    );
    page.text("share a root (`tacit ca init`, `tacit ca issue-node`). The same rules on both:");
    page.output(&format!(
        "uid {} is {}\nuid {} is {}\nthe client may call the server; nobody else may; all of it is strict",
        uid::CLIENT,
        client_id(),
        uid::SERVER,
        server_id()
    ));
    let began = Instant::now();
    let lab = Lab::start(&Rules::client_calls_server())?;
    page.verdict(&format!("both daemons are ready after {:.1} s", began.elapsed().as_secs_f64()));
    Ok(lab)
}

fn nobody_notices(page: &mut Page, lab: &Lab, nginx: &Nginx) -> Result<()> {
    page.section("Neither program notices");
    page.text("nginx on node b serves plain HTTP, as ever. curl on node a asks it.");
    let url = format!("http://{}:8080/", lab.b.ip);
    let format = "curl: I am %{local_ip}:%{local_port}, connected to %{remote_ip}:%{remote_port}";
    page.command("node-a", &format!("curl {url}"));
    let said = lab.client().must("curl", &["-sS", "-m", "20", "-w", format, &url])?;
    page.output(&said);
    let client = value(&said, "client").context("nginx named no client")?;
    ensure!(
        said.contains(&format!("I am {client}")),
        "the two disagree about the client's address"
    );
    ensure!(said.contains(&format!("connected to {}:8080", lab.b.ip)), "curl saw another address");
    page.verdict("what nginx calls its client is what curl calls itself: nothing is in between");
    let listening = lab.b.in_netns("ss", &["-Hltnp", "sport = :8080"])?;
    ensure!(listening.stdout.contains(&nginx.server.pid().to_string()), "{}", listening.stdout);
    page.verdict("port 8080 is still nginx's own; no firewall rule, no changed configuration");
    Ok(())
}

fn the_wire(page: &mut Page, lab: &Lab) -> Result<()> {
    page.section("The wire");
    let url = format!("http://{}:8080/", lab.b.ip);
    page.command("wire", "tcpdump -i veth0 -w capture.pcap      (while curl asks again)");
    let capture = lab.a.capture("demo")?;
    lab.client().must("curl", &["-sS", "-m", "20", &url])?;
    let packets = capture.stop()?;
    let hello = packets.first_tls(64).context("no TLS handshake on the wire")?;
    page.output(&hexdump(&hello));
    ensure!(!packets.contain(SECRET.as_bytes()), "the secret crossed the wire");
    page.verdict(&format!("{} bytes captured: TLS, and nowhere `{SECRET}`", packets.len()));

    // The same search in a run without protection: it can find what is there.
    let plain = lab.b.pod(Group::Outside, uid::STRANGER);
    let _nginx = Nginx::start(&plain, 8081, SECRET)?;
    let capture = lab.a.capture("control")?;
    let outsider = lab.a.pod(Group::Outside, uid::STRANGER);
    outsider.must("curl", &["-sS", "-m", "20", &format!("http://{}:8081/", lab.b.ip)])?;
    ensure!(capture.stop()?.contain(SECRET.as_bytes()), "the control run found nothing");
    page.verdict("control: between two programs in no scope the same search does find it");
    Ok(())
}

fn redis_too(page: &mut Page, lab: &Lab) -> Result<()> {
    page.section("Not only HTTP");
    let _redis = Redis::start(&lab.server(), 6379)?;
    let client = lab.client();
    for words in [&["set", "recipe", SECRET][..], &["get", "recipe"]] {
        page.command("node-a", &format!("redis-cli -h {} {}", lab.b.ip, words.join(" ")));
        page.output(&client.must("redis-cli", &[&["-h", lab.b.ip], words].concat())?);
    }
    Ok(())
}

fn the_records(page: &mut Page, lab: &Lab) -> Result<()> {
    page.section("What both nodes recorded");
    let of = |node: &Node, direction| {
        node.audit().expect(direction, |it| it.field("process.exe").contains("redis"))
    };
    let (outbound, inbound) = (of(&lab.a, "outbound")?, of(&lab.b, "inbound")?);
    show(page, "node a, outbound", &outbound);
    show(page, "node b, inbound", &inbound);
    ensure!(outbound.field("local.spiffe_id") == client_id(), "{}", outbound.json());
    ensure!(inbound.field("peer.spiffe_id") == client_id(), "{}", inbound.json());
    ensure!(inbound.field("local.spiffe_id") == server_id(), "{}", inbound.json());
    page.verdict("both ends name both identities, and the process behind its own");
    Ok(())
}

fn show(page: &Page, title: &str, record: &Record) {
    let end = |side: &str| {
        format!(
            "{} at {}",
            record.field(&format!("{side}.spiffe_id")),
            record.field(&format!("{side}.address"))
        )
    };
    page.facts(
        title,
        &[
            ("local", end("local")),
            ("peer", end("peer")),
            (
                "process",
                format!(
                    "{} (pid {}, uid {})",
                    record.field("process.exe"),
                    record.field("process.pid"),
                    record.field("process.uid")
                ),
            ),
            ("sha256", record.field("process.exe_sha256")),
            (
                "tls",
                format!(
                    "{} {} {}",
                    record.field("tls.version"),
                    record.field("tls.cipher"),
                    record.field("tls.group")
                ),
            ),
            ("outcome", format!("{} by rule {}", record.field("outcome"), record.field("rule"))),
            (
                "bytes",
                format!(
                    "{} sent, {} received",
                    record.field("bytes_sent"),
                    record.field("bytes_received")
                ),
            ),
            ("connection", record.field("connection_id")),
        ],
    );
}

fn a_refusal(page: &mut Page, lab: &Lab) -> Result<()> {
    page.section("A refusal, explained");
    page.text("Another user on node a runs the same curl. No entry knows it.");
    let url = format!("http://{}:8080/", lab.b.ip);
    let stranger = lab.a.pod(Group::Strict, uid::STRANGER);
    page.command("node-a", &format!("sudo -u '#{}' curl {url}", uid::STRANGER));
    let capture = lab.a.capture("refused")?;
    let said = stranger.run("curl", &["-sS", "-m", "20", &url])?;
    ensure!(!capture.stop()?.contain(b"GET /"), "a byte of it crossed the wire");
    ensure!(said.failed(), "a program without identity got an answer");
    page.output(&said.stderr);
    let record = lab.a.audit().expect_denied("outbound", "no_identity")?;
    page.facts(
        "node a, outbound",
        &[
            ("outcome", format!("{}: {}", record.field("outcome"), record.field("reason"))),
            ("detail", record.field("detail")),
            (
                "process",
                format!("{} (uid {})", record.field("process.exe"), record.field("process.uid")),
            ),
            ("peer", record.field("peer.address")),
        ],
    );
    let id = record.field("id");
    page.command("node-a", &format!("tacit explain {id}"));
    page.output(&lab.a.ask(&["explain", &id])?);
    page.verdict("refused on its own node; not a byte of it reached the wire");
    Ok(())
}

fn without_daemon(page: &mut Page, lab: &Lab) -> Result<()> {
    page.section("Should the daemon die");
    page.command("node-a", "kill -9 $(pidof tacit); curl …");
    let url = format!("http://{}:8080/", lab.b.ip);
    lab.a.crash()?;
    let capture = lab.a.capture("dead")?;
    let said = lab.client().run("curl", &["-sS", "-m", "10", &url])?;
    ensure!(said.failed(), "curl got an answer without a daemon");
    page.output(&said.stderr);
    ensure!(!capture.stop()?.contain(b"GET /"), "plaintext crossed the wire");
    page.verdict(
        "strict stays closed: programs in the kernel refuse, nothing goes out in the clear",
    );
    lab.a.start()?;
    lab.client().must("curl", &["-sS", "-m", "20", &url])?;
    page.verdict("with the daemon back, the next connection works");
    Ok(())
}
