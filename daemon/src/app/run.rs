//! The daemon from its first breath to its last, in order. Attach comes late: nothing is redirected
//! to a proxy that does not listen. Stopping never detaches: strict scopes stay closed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::bpf::{EventStream, Kernel, KernelCounters, KernelSettings};
use crate::config::{Config, Installation, ReloadHandle, Reloader};
use crate::proxy::{self, Proxy, ProxyParts};
use crate::shutdown::{Stop, Tasks};
use crate::sys::cgroup::Cgroups;
use crate::sys::route_changes::RouteChanges;
use crate::sys::{clock, netns, process};
use crate::telemetry;
use crate::workload::NetnsCookie;

use super::authorities::Authorities;
use super::base::{self, Base};
use super::bypasses::Bypasses;
use super::changes::Operations;
use super::connections::PassingBy;
use super::denials::Denials;
use super::events::{self, LostEvents, Recorder};
use super::extent::Extent;
use super::ground::{self, Listeners};
use super::in_force::InForce;
use super::listeners::ListenerTable;
use super::scopes::ScopeTable;
use super::snapshots::Daemon;
use super::start_error::StartError;
use super::tasks::{self, Loaded, Numbers, Reloads};

/// How long the last records may take to be written once everything else has ended.
const LAST_RECORDS: Duration = Duration::from_secs(5);

/// Runs the daemon until it is told to stop: SIGTERM or SIGINT drains, a second one stops.
pub fn run(config: Config, path: PathBuf) -> Result<(), StartError> {
    telemetry::start(config.log);
    process::protect_memory().map_err(StartError::Protect)?;
    if let Err(error) = process::raise_open_files() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    // Kernels before 5.11 count maps against this limit; where it stays, loading says so.
    let _lifted = process::lift_locked_memory().is_ok();
    if let Err(error) = process::lock_memory() {
        tracing::warn!(%error, "memory is not locked: keys may be swapped out");
    }
    // Before any thread or socket is made: both belong to the cgroup they are made in.
    let cgroups = Cgroups::find()?;
    let own = ground::own_cgroup(&cgroups, &config.capture)?;
    let own_netns = netns::own_cookie()
        .map_err(|source| StartError::Machine { what: "the own network namespace", source })?;
    let cgroup = cgroups.mount().join(config.capture.cgroup.trim_start_matches('/'));
    let kernel = Kernel::load(KernelSettings {
        cgroup,
        pins: ground::pin_folder(&config.capture)?,
        own_cgroup: own,
        netns: own_netns,
        observe_unscoped: config.audit.observe,
    })?;
    for lack in kernel.lacks() {
        let crate::bpf::Lack { program, means, reason, .. } = lack;
        tracing::warn!(program, means, reason, "this kernel lacks something");
    }
    // From here on there is nothing to load. Before the runtime has threads, which inherit it.
    let extent = Extent::at_start(&config);
    extent.keep()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(StartError::Runtime)?;
    let footing = Footing { kernel: Arc::new(kernel), cgroups, netns: own_netns, extent };
    let served = runtime.block_on(serve(config, path, footing));
    // What is left are threads that wait for a disk or a directory service: they hold up nothing.
    runtime.shutdown_background();
    served
}

/// Removes everything that an instance has left in the kernel. Says whether there was anything.
pub fn uninstall(at: &Installation) -> Result<bool, StartError> {
    if std::os::unix::net::UnixStream::connect(&at.socket).is_ok() {
        return Err(StartError::StillRunning { socket: at.socket.clone() });
    }
    // First, since it cannot be removed under a daemon.
    let path = ground::own_cgroup_of(&at.capture);
    let had_cgroup = match Cgroups::find()?.remove(&path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => false,
        Err(source) => return Err(StartError::CgroupLeft { path, source }),
        Ok(()) => true,
    };
    let commands = ground::commands_cgroup_of(&at.capture);
    Cgroups::find()?
        .remove_below(&commands)
        .map_err(|source| StartError::CgroupLeft { path: commands, source })?;
    let pins = ground::pin_folder(&at.capture)?;
    let had_pins = pins.exists();
    Kernel::uninstall(&pins)?;
    Ok(had_cgroup || had_pins)
}

/// What the daemon stands on before it serves.
#[derive(Clone)]
struct Footing {
    kernel: Arc<Kernel>,
    cgroups: Cgroups,
    netns: NetnsCookie,
    extent: Extent,
}

/// What the stages of the start hand on.
struct Started {
    kernel: Arc<Kernel>,
    in_force: InForce,
    proxy: Arc<Proxy>,
    counters: Arc<KernelCounters>,
    /// What ends when the daemon drains.
    tasks: Tasks,
    /// What lives until the last connection has ended.
    last: Tasks,
}

async fn serve(config: Config, path: PathBuf, footing: Footing) -> Result<(), StartError> {
    let (mut base, writer) = Base::open(&config).await?;
    let programs = base.readiness.condition("programs attached");
    let mut started = capture(&config, &base, &footing)?;
    let in_force = started.in_force.clone();
    let reloader = Reloader::new(path.clone(), config.clone())
        .taken_up_by(move |config| in_force.take_up(config));
    let (reload, hang_up) = (reloader.handle(), reloader.handle());
    started.last.spawn("audit writer", writer.run(started.last.stop()));
    let bypasses = adopt(&mut started, &base, &footing).await;
    programs.met();
    base.watch(&started.in_force.identities, &reload);
    let published = base.serve_endpoints(&mut started.tasks);
    let fetcher = base.fetch_bundles(&mut started.tasks, &config);
    base.serve_workloads(
        &mut started.tasks,
        &config,
        &started.in_force.identities,
        &footing.cgroups,
    );
    base.keep_files(&mut started.tasks, &config, &started.in_force, &footing.cgroups)?;

    let audit = base.audit.clone();
    let loaded = Loaded::new(clock::now());
    let reloads = Reloads {
        status: reload.status(),
        metrics: Arc::clone(&base.metrics),
        audit: audit.clone(),
        loaded: loaded.clone(),
        clock: clock::now,
    };
    started.tasks.spawn("reloads", reloads.tell(started.tasks.stop()));
    let changes = operations(&base, &started.in_force, started.proxy);
    let recording = changes.authorities.clone().record(started.last.stop());
    started.last.spawn("authorities", recording);
    let daemon = Arc::new(Daemon {
        started: loaded.at(),
        loaded,
        path,
        kernel: started.kernel,
        counters: started.counters,
        audit: audit.clone(),
        identities: started.in_force.identities,
        authorities: changes.authorities.clone(),
        denials: changes.denials.clone(),
        entries: started.in_force.entries.clone(),
        bundles: base.bundles.clone(),
        published,
        fetcher,
        policy: started.in_force.policy.subscribe(),
        reload,
        readiness: base.readiness.clone(),
        table: started.in_force.table,
        cgroups: footing.cgroups,
        netns: footing.netns,
        bypasses,
    });
    let stop = started.tasks.stop();
    started.tasks.spawn("configuration", reloader.run(stop.clone()));
    started.tasks.spawn("hang-up", reload_on_hangup(hang_up, stop));
    base.serve(&mut started.last, daemon, Arc::new(changes));
    footing.extent.forbid()?;
    tracing::info!(node = %config.node.name, trust_domain = %config.node.trust_domain, "ready");
    until_told_to_stop(&mut started.tasks, config.proxy.drain_timeout).await;
    if !audit.flush(LAST_RECORDS).await {
        tracing::warn!("the audit log takes no records; they are tried once more, then lost");
    }
    started.last.drain(LAST_RECORDS).await;
    Ok(())
}

/// What may be changed while the daemon runs, and by whom that is recorded.
fn operations(base: &Base, in_force: &InForce, proxy: Arc<Proxy>) -> Operations {
    let audit = base.audit.clone();
    Operations {
        denials: Denials {
            in_force: in_force.clone(),
            proxy: Arc::clone(&proxy),
            audit: audit.clone(),
        },
        authorities: Authorities {
            ca: Arc::clone(&base.ca),
            identities: in_force.identities.clone(),
            proxy,
            audit: audit.clone(),
        },
        entries: in_force.entries.clone(),
        bundles: base.bundles.clone(),
        audit,
    }
}

/// Listens, tells the programs, serves, and only then attaches.
fn capture(config: &Config, base: &Base, footing: &Footing) -> Result<Started, StartError> {
    let Footing { kernel, cgroups, netns, extent } = footing.clone();
    let (mut tasks, mut last) = (Tasks::new(), Tasks::new());
    let stop = tasks.stop();
    let table = ScopeTable::new(Arc::clone(&kernel), cgroups.clone(), base.audit.clone());
    let in_force = InForce::open(config, base, extent, table)?;
    let (identities, table) = (in_force.identities.clone(), in_force.table.clone());
    let listeners = Listeners::open(&config.proxy)?;
    kernel.introduce(&listeners.ports())?;
    table.apply(&config.scopes)?;
    let changes = RouteChanges::listen()
        .map_err(|source| StartError::Machine { what: "changes of routes", source })?;
    tasks.spawn("routes", tasks::follow_routes(Arc::clone(&kernel), changes, stop.clone()));
    let events = EventStream::take(&kernel)?;
    let counters = Arc::new(KernelCounters::take(&kernel)?);
    let proxy = Proxy::new(ProxyParts {
        identities: identities.clone(),
        bundles: identities.bundles(),
        policy: in_force.policy.subscribe(),
        modes: table.modes(),
        scope_of: {
            let table = table.clone();
            Arc::new(move |claim| table.rescoped(claim))
        },
        settled: in_force.settled.subscribe(),
        audit: base.audit.clone(),
        metrics: Arc::clone(&base.metrics),
        flows: Arc::<Kernel>::clone(&kernel),
        settings: base::proxy_settings(&config.proxy),
    });
    serve_proxy(&mut tasks, listeners, &proxy)?;
    last.spawn("live connections", proxy::keep_watch(Arc::clone(&proxy), last.stop()));
    last.spawn("renewal", identities.clone().run(last.stop()));
    tasks.spawn("signs of life", tasks::beat(Arc::clone(&kernel), stop.clone()));
    kernel.attach()?;
    tasks.spawn("scopes", table.clone().run(stop));
    let recorder = Recorder {
        audit: base.audit.clone(),
        identities: identities.clone(),
        kernel: Arc::clone(&kernel),
        counters: Arc::clone(&counters),
        netns,
        observe: config.audit.observe,
    };
    last.spawn("kernel events", events::record(events, recorder, last.stop()));
    let numbers = Numbers {
        counters: Arc::clone(&counters),
        identities: identities.clone(),
        metrics: Arc::clone(&base.metrics),
        audit: base.audit.clone(),
        lost: LostEvents::open(&config.node.state_dir),
    };
    last.spawn("numbers", numbers.run(last.stop()));
    Ok(Started { kernel, in_force, proxy, counters, tasks, last })
}

/// Serves each of the listeners.
fn serve_proxy(
    tasks: &mut Tasks,
    listeners: Listeners,
    proxy: &Arc<Proxy>,
) -> Result<(), StartError> {
    let failed = |source| StartError::Machine { what: "a listening socket", source };
    let Listeners { outbound4, outbound6, inbound4, inbound6 } = listeners;
    for listener in [Some(outbound4), outbound6].into_iter().flatten() {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        let serving = proxy::serve_outbound(listener, Arc::clone(proxy), tasks.stop());
        tasks.spawn("outbound connections", serving);
    }
    for listener in [Some(inbound4), inbound6].into_iter().flatten() {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        let serving = proxy::serve_inbound(listener, Arc::clone(proxy), tasks.stop());
        tasks.spawn("inbound connections", serving);
    }
    Ok(())
}

/// Deals with what is older than the daemon: resets the connections of strict scopes, finds the owners
/// of listeners; and keeps doing so as scopes change.
async fn adopt(started: &mut Started, base: &Base, footing: &Footing) -> Bypasses {
    let Footing { cgroups, netns, .. } = footing;
    let listeners = ListenerTable::new(
        Arc::clone(&started.kernel),
        started.in_force.table.clone(),
        (cgroups.clone(), *netns),
        Arc::clone(&base.metrics),
    );
    let modes = started.in_force.table.modes();
    let audit = base.audit.clone();
    let passing =
        PassingBy::new(started.in_force.table.clone(), audit, started.kernel.own_cgroup());
    passing.clone().look().await;
    let bypasses = Bypasses::new(started.in_force.table.clone(), cgroups.clone(), passing.clone());
    started.tasks.spawn("bypasses", bypasses.clone().run(modes.clone(), started.tasks.stop()));
    started.tasks.spawn("older connections", passing.run(modes.clone(), started.tasks.stop()));
    let listeners = listeners.begin().await;
    started.tasks.spawn("listeners", listeners.run(modes, started.tasks.stop()));
    let standing = bypasses.clone();
    base.readiness.probe("nothing goes past strict scopes", move || standing.standing());
    bypasses
}

async fn reload_on_hangup(reload: ReloadHandle, mut stop: Stop) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    loop {
        tokio::select! {
            biased;
            () = stop.draining() => return,
            asked = hangup.recv() => if asked.is_none() { return },
        }
        match reload.reload_now().await {
            Ok(changed) => tracing::info!(changed, "reloaded on SIGHUP"),
            Err(error) => tracing::error!(%error, "the configuration stays as it was"),
        }
    }
}

/// The first SIGTERM or SIGINT drains, a second one stops at once.
async fn until_told_to_stop(tasks: &mut Tasks, drain: Duration) {
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be received; stopping");
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!(?drain, "draining; a second signal stops at once");
    tokio::select! {
        biased;
        _ = term.recv() => {}
        _ = int.recv() => {}
        dropped = tasks.drain(drain) => {
            if dropped > 0 {
                tracing::warn!(dropped, "tasks were dropped at the drain deadline");
            }
        }
    }
}
