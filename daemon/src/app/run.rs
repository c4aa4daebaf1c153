//! The daemon's start, in order. Attach comes late: nothing is redirected to a proxy that does not
//! listen. How it goes on, and ends, is in `course.rs`. Stopping never detaches: strict scopes stay
//! closed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::audit::log::Before;
use crate::audit::{Inheritance, Record, Writer};
use crate::bpf::{Kernel, KernelCounters, KernelSettings};
use crate::config::{Config, Installation, ReloadHandle, Reloader};
use crate::proxy::{self, Proxy, ProxyParts};
use crate::shutdown::{Stop, Tasks};
use crate::sys::cgroup::Cgroups;
use crate::sys::{clock, netns, process, service_manager};
use crate::telemetry;
use crate::workload::NetnsCookie;

use super::authorities::Authorities;
use super::base::{self, Base};
use super::bypasses::Bypasses;
use super::connections::PassingBy;
use super::course::Course;
use super::denials::Denials;
use super::drains::Drains;
use super::extent::Extent;
use super::ground;
use super::in_force::InForce;
use super::reign::{Governor, Reign};
use super::scopes::{self, ScopeTable};
use super::sockets::{Estate, Listeners};
use super::start_error::StartError;
use super::succession::{self, Offer, Passable, Predecessor, Yielding};
use super::surface::Asked;
use super::tasks::{Loaded, Reloads};

/// Runs the daemon until it is told to stop: SIGTERM or SIGINT drains, a second one stops. With
/// `replace` it takes the place of the one that runs.
pub fn run(config: Config, path: PathBuf, replace: bool) -> Result<(), StartError> {
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
    let mut estate = Estate::of_service_manager();
    let own_netns = netns::own_cookie()
        .map_err(|source| StartError::Machine { what: "the own network namespace", source })?;
    let pins = ground::pin_folder(&config.capture)?;
    let mut predecessor = if replace { succession::ask(&config, &pins, own_netns)? } else { None };
    if let Some(predecessor) = &mut predecessor {
        estate.join(predecessor.sockets());
    }
    // Before any thread or socket is made: both belong to the cgroup they are made in.
    let cgroups = Cgroups::find()?;
    let own = match &predecessor {
        Some(predecessor) => ground::enter(&cgroups, predecessor.cgroup())?,
        None => ground::own_cgroup(&cgroups, &config.capture)?,
    };
    let cgroup = cgroups.mount().join(config.capture.cgroup.trim_start_matches('/'));
    let kernel = Kernel::load(KernelSettings {
        cgroup,
        pins,
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
    let place = Place { kernel: Arc::new(kernel), cgroups, netns: own_netns, extent };
    let served = runtime.block_on(serve(config, path, place, estate, predecessor));
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

/// Where the daemon stands.
struct Place {
    kernel: Arc<Kernel>,
    cgroups: Cgroups,
    netns: NetnsCookie,
    extent: Extent,
}

/// What the stages of the start hand on.
struct Started {
    governor: Governor,
    reign: Reign,
    in_force: InForce,
    proxy: Arc<Proxy>,
    listeners: Listeners,
    passable: Passable,
    /// What ends when the daemon drains.
    tasks: Tasks,
    /// What lives until the last connection has ended.
    last: Tasks,
}

async fn serve(
    config: Config,
    path: PathBuf,
    place: Place,
    mut estate: Estate,
    predecessor: Option<Predecessor>,
) -> Result<(), StartError> {
    scopes::can_keep(&config.scopes, place.kernel.lacks())?;
    // All that can fail without harm has been done. From here on a predecessor rules no more.
    let yielding = match predecessor {
        Some(predecessor) => Some(predecessor.yields().await?),
        None => None,
    };
    let before = yielding.as_ref().map_or(Before::Gone, |it| Before::Draining(it.pid()));
    let (base, writer, open) = Base::open(&config, before, &mut estate).await?;
    let draining = yielding.as_ref().map_or_else(Vec::new, Yielding::pids);
    let started = capture(&config, &base, &place, (&mut estate, &draining))?;
    estate.settle();
    let begun = Begun { config, path, base, writer, yielding, open };
    let course = begun.course(started, place).await?;
    service_manager::ready(std::process::id());
    course.run().await
}

/// All but what is asked and told.
struct Begun {
    config: Config,
    path: PathBuf,
    base: Base,
    writer: Writer,
    yielding: Option<Yielding>,
    /// Opening records of connections that a predecessor has.
    open: Vec<Record>,
}

impl Begun {
    /// Writes the log, answers, and has a predecessor drain.
    async fn course(self, started: Started, place: Place) -> Result<Course, StartError> {
        let Self { config, path, mut base, writer, yielding, open } = self;
        let Started { governor, mut reign, in_force, proxy, listeners, mut passable, .. } = started;
        let (mut serving, mut last, mut front) = (started.tasks, started.last, Tasks::new());
        let programs = base.readiness.condition("programs attached");
        last.spawn("audit writer", writer.run(last.stop()));
        let authorities = Authorities {
            ca: Arc::clone(&base.ca),
            identities: in_force.identities.clone(),
            proxy: Arc::clone(&proxy),
            audit: base.audit.clone(),
        };
        last.spawn("authorities", authorities.clone().record(last.stop()));
        let denials = Denials { in_force: in_force.clone(), proxy, audit: base.audit.clone() };
        governor.adopt(&mut reign).await?;
        programs.met();
        let standing = governor.bypasses.clone();
        base.readiness.probe("nothing goes past strict scopes", move || standing.standing());
        let audit = base.audit.clone();
        let drains = Drains::new(audit.clone());
        let workload_file = base.passable(&mut passable).map_err(passing)?;
        let (loaded, reload) = follow_configuration((&config, &path), &in_force, &base, &mut last);
        base.watch(&governor.identities, &reload, &drains);
        let published = base.serve_endpoints(&mut serving);
        let fetcher = base.fetch_bundles(&mut serving, &config);
        base.serve_workloads(&mut serving, &config, &governor.identities, &place.cgroups);
        let asked = Asked {
            path,
            loaded,
            reload: reload.clone(),
            authorities,
            denials,
            published,
            fetcher,
            drains: drains.clone(),
        };
        let (surface, candidates, frozen) = asked.surface(&config, &base, &governor, &in_force);
        base.serve(&mut front, Arc::clone(&surface.daemon), Arc::clone(&surface.changes));
        let offer = offer(&config, &place)?;
        place.extent.forbid()?;
        // After this nothing fails: the predecessor goes.
        if let Some(yielding) = yielding {
            let inheritance = Inheritance::new(audit, open);
            let draining = yielding.taken().await?;
            let kernel = Arc::clone(&governor.kernel);
            last.spawn("predecessor", draining.follow(inheritance, kernel, drains.others()));
        }
        workload_file.made(governor.kept);
        tracing::info!(node = %config.node.name, trust_domain = %config.node.trust_domain, "ready");
        let drain_timeout = config.proxy.drain_timeout;
        Ok(Course {
            governor,
            reign,
            serving,
            front,
            last,
            surface,
            reload,
            candidates,
            frozen,
            listeners,
            passable,
            workload_file,
            offer,
            drains,
            drain_timeout,
        })
    }
}

/// Takes up what changes in the configuration, to the last: open connections are judged by the
/// rules as they are.
fn follow_configuration(
    (config, path): (&Config, &Path),
    in_force: &InForce,
    base: &Base,
    last: &mut Tasks,
) -> (Loaded, ReloadHandle) {
    let in_force = in_force.clone();
    let reloader = Reloader::new(path.to_owned(), config.clone())
        .taken_up_by(move |config| in_force.take_up(config));
    let (loaded, reload) = (Loaded::new(clock::now()), reloader.handle());
    let reloads = Reloads {
        status: reload.status(),
        metrics: Arc::clone(&base.metrics),
        audit: base.audit.clone(),
        loaded: loaded.clone(),
        clock: clock::now,
    };
    last.spawn("reloads", reloads.tell(last.stop()));
    last.spawn("hang-up", reload_on_hangup(reloader.handle(), last.stop()));
    last.spawn("configuration", reloader.run(last.stop()));
    (loaded, reload)
}

/// What a successor is told.
fn offer(config: &Config, place: &Place) -> Result<Offer, StartError> {
    let own = place.cgroups.own();
    Ok(Offer {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cgroup: own.map_err(|source| StartError::Machine { what: "the own cgroup", source })?,
        pins: ground::pin_folder(&config.capture)?,
        attached_at: config.capture.cgroup.clone(),
        netns: place.netns.0,
        draining: Vec::new(),
        sockets: Vec::new(),
    })
}

fn passing(source: io::Error) -> StartError {
    StartError::Machine { what: "a listening socket", source }
}

/// Listens, tells the programs, serves, and only then attaches.
fn capture(
    config: &Config,
    base: &Base,
    place: &Place,
    (estate, draining): (&mut Estate, &[u32]),
) -> Result<Started, StartError> {
    let (mut tasks, mut last) = (Tasks::new(), Tasks::new());
    let kernel = &place.kernel;
    let table = ScopeTable::new(Arc::clone(kernel), place.cgroups.clone(), base.audit.clone());
    let in_force = InForce::open(config, base, place.extent, table)?;
    let (identities, table) = (in_force.identities.clone(), in_force.table.clone());
    let listeners = Listeners::open(&config.proxy, estate)?;
    kernel.introduce(&listeners.ports(), draining)?;
    table.apply(&config.scopes)?;
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
        flows: Arc::<Kernel>::clone(kernel),
        settings: base::proxy_settings(&config.proxy),
    });
    let passable = serve_proxy(&mut tasks, &listeners, &proxy).map_err(passing)?;
    last.spawn("live connections", proxy::keep_watch(Arc::clone(&proxy), last.stop()));
    last.spawn("renewal", identities.clone().run(last.stop()));
    let own = (kernel.own_cgroup(), config.proxy.outbound_port);
    let passing = PassingBy::new(table.clone(), base.audit.clone(), own);
    let commands = ground::commands_cgroup_of(&config.capture);
    let governor = Governor {
        kernel: Arc::clone(kernel),
        audit: base.audit.clone(),
        metrics: Arc::clone(&base.metrics),
        identities: in_force.identities.clone(),
        counters: Arc::new(KernelCounters::take(kernel)?),
        table: in_force.table.clone(),
        files: in_force.files.clone(),
        standings: base.watch_files(),
        commands: place.cgroups.mount().join(commands.trim_start_matches('/')),
        cgroups: place.cgroups.clone(),
        netns: place.netns,
        state_dir: config.node.state_dir.clone(),
        observe: config.audit.observe,
        bypasses: Bypasses::new(table, place.cgroups.clone(), passing.clone()),
        passing,
        kept: estate.is_kept(),
    };
    let reign = governor.begin()?;
    kernel.attach()?;
    Ok(Started { governor, reign, in_force, proxy, listeners, passable, tasks, last })
}

/// Serves each of the listeners, and keeps what can be passed on.
fn serve_proxy(
    tasks: &mut Tasks,
    listeners: &Listeners,
    proxy: &Arc<Proxy>,
) -> io::Result<Passable> {
    let mut passable = Passable::default();
    for (name, listener) in listeners.named() {
        passable.add(name, listener)?;
    }
    let Listeners { outbound4, outbound6, inbound4, inbound6 } = listeners;
    for listener in [Some(outbound4), outbound6.as_ref()].into_iter().flatten() {
        let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
        let serving = proxy::serve_outbound(listener, Arc::clone(proxy), tasks.stop());
        tasks.spawn("outbound connections", serving);
    }
    for listener in [Some(inbound4), inbound6.as_ref()].into_iter().flatten() {
        let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
        let serving = proxy::serve_inbound(listener, Arc::clone(proxy), tasks.stop());
        tasks.spawn("inbound connections", serving);
    }
    Ok(passable)
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
