//! What the configuration checks is what the kernel's tables hold: both have it from elsewhere.

use tacit::workload::ScopeLimits;

#[test]
fn the_limits_of_scopes_are_those_of_the_programs() {
    let ScopeLimits { scopes, users, port_ranges, path_bytes, levels } = ScopeLimits::HELD;
    // Index 0 is "in no scope".
    assert_eq!(u32::try_from(scopes).unwrap() + 1, ebpf_abi::MAX_SCOPES);
    assert_eq!(users, ebpf_abi::MAX_USERS);
    assert_eq!(port_ranges, ebpf_abi::MAX_PORT_RANGES);
    // The path ends with a zero byte.
    assert_eq!(path_bytes + 1, ebpf_abi::MAX_PATH);
    assert_eq!(u32::try_from(levels).unwrap(), ebpf_abi::MAX_LEVEL);
}
