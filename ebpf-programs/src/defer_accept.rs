//! cgroup setsockopt: TCP_DEFER_ACCEPT of a captured listener is taken and not applied.
//!
//! With it the kernel makes the accepted socket only when data has come, and the daemon sends none
//! before it has seen who accepted. The option only spares a server an early wake-up.

use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::macros::cgroup_sockopt;
use aya_ebpf::programs::SockoptContext;
use ebpf_abi::mode;

use crate::{bypass, maps, scope, used};

const ALLOW: i32 = 1;
const SOL_TCP: i32 = 6;
const TCP_DEFER_ACCEPT: i32 = 9;
/// The kernel's own handler is not asked (`Documentation/bpf/prog_cgroup_sockopt.rst`).
const DONE: i32 = -1;

#[cgroup_sockopt(setsockopt)]
pub fn tacit_setsockopt(ctx: SockoptContext) -> i32 {
    let opt = ctx.sockopt;
    let Some(config) = maps::config() else {
        return ALLOW;
    };
    // SAFETY: plain context field.
    let sk = unsafe { (*opt).__bindgen_anon_1.sk };
    if config.scope_levels == 0 || sk.is_null() {
        return ALLOW;
    }
    // SAFETY: the helper takes the context.
    used::adopt(config, sk, || unsafe { bpf_get_netns_cookie(opt.cast()) });
    // SAFETY: plain context fields.
    let (level, name) = unsafe { ((*opt).level, (*opt).optname) };
    if level == SOL_TCP
        && name == TCP_DEFER_ACCEPT
        && scope::mode_of(scope::of_current(config)) != mode::OBSERVE
        && !bypass::is_daemon(config)
    {
        // SAFETY: plain context field that this hook may write.
        unsafe { (*opt).optlen = DONE };
    }
    ALLOW
}
