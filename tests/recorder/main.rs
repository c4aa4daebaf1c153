//! The daemon's kernel half alone, without identities, policy or TLS: loads and attaches the
//! programs, says what they recorded of each connection, echoes outbound ones and carries inbound
//! ones to the application.
//!
//! The kernel tier judges the programs by what it says.
#![expect(clippy::print_stdout, reason = "what it says is its result")]

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result};
use clap::Parser;
use socket2::{Domain, Socket, Type};
use tacit::bpf::{BEAT, Kernel, KernelSettings, PlacedScope, ProxyPorts};
use tacit::sys::cgroup::{Cgroups, level};
use tacit::sys::{bpffs, netns, routes};
use tacit::workload::{
    CgroupId, ClientAddr, FailMode, ListenAddr, ListenerLookup, Mode, OtherTransports, PortSet,
    ProcessClaim, Scope,
};

const OUTBOUND_PORT: u16 = 15001;
const INBOUND_PORT: u16 = 15006;

#[derive(Debug, Parser)]
struct Arguments {
    /// Where to pin.
    #[arg(long)]
    pins: PathBuf,
    /// Cgroup to attach at; `strict` and `permissive` below it are scopes.
    #[arg(long)]
    cgroup: String,
    /// Give no signs of life: as if the daemon had died.
    #[arg(long)]
    silent: bool,
    /// Remove what is pinned, and nothing else.
    #[arg(long)]
    uninstall: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if arguments.uninstall {
        return Kernel::uninstall(&arguments.pins).context("uninstall");
    }
    bpffs::mounted(Path::new(bpffs::USUAL)).context("the BPF file system")?;
    let cgroups = Cgroups::find()?;
    let kernel = Arc::new(load(arguments, &cgroups)?);
    let outbound4 = TcpListener::bind((Ipv4Addr::LOCALHOST, OUTBOUND_PORT))?;
    let outbound6 = TcpListener::bind((Ipv6Addr::LOCALHOST, OUTBOUND_PORT))?;
    let inbound4 = TcpListener::bind((Ipv4Addr::LOCALHOST, INBOUND_PORT))?;
    let inbound6 = TcpListener::bind((Ipv6Addr::LOCALHOST, INBOUND_PORT))?;
    let ports = ProxyPorts {
        outbound4: &outbound4,
        outbound6: Some(&outbound6),
        inbound4: &inbound4,
        inbound6: Some(&inbound6),
    };
    kernel.introduce(&ports, &[])?;
    let scopes = scopes(arguments, &cgroups)?;
    kernel.set_scopes(|| scopes)?;
    kernel.set_sources(&routes::source_routes()?)?;
    kernel.attach()?;
    for listener in [outbound4, outbound6] {
        let kernel = Arc::clone(&kernel);
        thread::spawn(move || accept(&listener, |stream| outbound(&kernel, &stream)));
    }
    for listener in [inbound4, inbound6] {
        let kernel = Arc::clone(&kernel);
        thread::spawn(move || accept(&listener, |stream| inbound(&kernel, stream)));
    }
    for status in kernel.status() {
        println!("program={} attached={}", status.program, status.attached);
    }
    println!("ready=1");
    loop {
        thread::sleep(BEAT);
        if !arguments.silent {
            kernel.beat()?;
        }
    }
}

fn load(arguments: &Arguments, cgroups: &Cgroups) -> Result<Kernel> {
    let own = cgroups.own()?;
    Kernel::load(KernelSettings {
        cgroup: cgroups.mount().join(arguments.cgroup.trim_start_matches('/')),
        pins: arguments.pins.clone(),
        own_cgroup: cgroups.id_of(&own)?,
        netns: netns::own_cookie()?,
        observe_unscoped: true,
    })
    .context("load")
}

fn scopes(arguments: &Arguments, cgroups: &Cgroups) -> Result<Vec<PlacedScope>> {
    let modes = [
        ("strict", Mode::Strict, FailMode::Closed, OtherTransports::DnsOnly),
        ("permissive", Mode::Permissive, FailMode::Open, OtherTransports::Allow),
    ];
    let place = |(name, mode, fail, other_transports)| {
        let path = format!("{}/{name}", arguments.cgroup);
        let cgroup: CgroupId = cgroups.id_of(&path)?;
        let level = u32::try_from(level(&path))?;
        let scope = Scope {
            cgroup: path,
            uid: None,
            mode,
            fail,
            other_transports,
            inbound_ports: PortSet::all(),
            outbound_ports: PortSet::all(),
        };
        Ok(PlacedScope { scope, cgroup: Some(cgroup), level, id: None })
    };
    modes.into_iter().map(place).collect()
}

fn accept(listener: &TcpListener, treat: impl Fn(TcpStream) -> Result<()> + Sync) {
    for stream in listener.incoming() {
        let treated = stream.context("accept").and_then(&treat);
        if let Err(error) = treated {
            println!("failed: {error:#}");
        }
    }
}

/// Says what was recorded of a captured connection and echoes.
fn outbound(kernel: &Kernel, stream: &TcpStream) -> Result<()> {
    let Some(flow) = kernel.outbound(stream.as_fd())? else {
        println!("outbound unknown={}", stream.peer_addr()?);
        return Ok(());
    };
    println!(
        "outbound dst={} src={} bound={} ifindex={} mode={} {}",
        flow.original_dst,
        flow.source,
        flow.source_bound,
        flow.bound_ifindex,
        flow.mode.as_str(),
        who(&flow.claim)
    );
    let stream = stream.try_clone()?;
    thread::spawn(move || pump(&stream, &stream));
    Ok(())
}

/// Says whose listener was called and carries the connection there.
fn inbound(kernel: &Kernel, stream: TcpStream) -> Result<()> {
    let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
    let owner = match kernel.listener(ListenAddr::new(local)) {
        ListenerLookup::Found(listener) => who(&listener.claim),
        ListenerLookup::Ambiguous(_) => "owner=ambiguous".to_owned(),
        ListenerLookup::Missing => "owner=missing".to_owned(),
    };
    println!("inbound local={local} peer={peer} {owner}");
    let socket = Socket::new(Domain::for_address(local), Type::STREAM, None)?;
    kernel.mark_last_mile(socket.as_fd(), ClientAddr::new(peer))?;
    socket.connect(&SocketAddr::new(local.ip(), local.port()).into()).context("last mile")?;
    let application: TcpStream = socket.into();
    let (back_from, back_to) = (application.try_clone()?, stream.try_clone()?);
    thread::spawn(move || pump(&stream, &application));
    thread::spawn(move || pump(&back_from, &back_to));
    Ok(())
}

/// Bytes one way until their end; a broken connection ends as one.
fn pump(mut from: &TcpStream, mut to: &TcpStream) {
    let carried: io::Result<u64> = io::copy(&mut from, &mut to);
    if let Err(error) = carried.and_then(|_bytes| to.shutdown(Shutdown::Write)) {
        println!("carried={:?}", error.kind());
    }
}

fn who(claim: &ProcessClaim) -> String {
    format!(
        "uid={} gid={} real_uid={} pid={} start={} cgroup={} ino={} source={}",
        claim.uid,
        claim.gid,
        claim.real_uid,
        claim.process.pid,
        claim.process.start_ns,
        claim.cgroup.0,
        claim.exe.ino,
        claim.source.as_str()
    )
}
