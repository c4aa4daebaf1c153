//! Where the running kernel keeps what the programs read of a task. Home of `btf-rs`.

use btf_rs::{Btf, Type};
use ebpf_abi::TaskOffsets;

use super::LoadError;

const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Reads the offsets from the running kernel's type information.
pub(super) fn read() -> Result<TaskOffsets, LoadError> {
    let btf = Btf::from_file(KERNEL_BTF).map_err(|_unreadable| LoadError::Offset(KERNEL_BTF))?;
    let at = |name: &'static str, structure: &str, field: &str| {
        offset(&btf, structure, field).ok_or(LoadError::Offset(name))
    };
    Ok(TaskOffsets {
        group_leader: at("task_struct.group_leader", "task_struct", "group_leader")?,
        start_boottime: at("task_struct.start_boottime", "task_struct", "start_boottime")?,
        cred: at("task_struct.cred", "task_struct", "cred")?,
        real_cred: at("task_struct.real_cred", "task_struct", "real_cred")?,
        mm: at("task_struct.mm", "task_struct", "mm")?,
        self_exec_id: at("task_struct.self_exec_id", "task_struct", "self_exec_id")?,
        cred_uid: at("cred.uid", "cred", "uid")?,
        cred_gid: at("cred.gid", "cred", "gid")?,
        cred_euid: at("cred.euid", "cred", "euid")?,
        cred_egid: at("cred.egid", "cred", "egid")?,
        mm_exe_file: at("mm_struct.exe_file", "mm_struct", "exe_file")?,
        file_inode: at("file.f_inode", "file", "f_inode")?,
        inode_ino: at("inode.i_ino", "inode", "i_ino")?,
        inode_sb: at("inode.i_sb", "inode", "i_sb")?,
        sb_dev: at("super_block.s_dev", "super_block", "s_dev")?,
        cgroup_kn: at("cgroup.kn", "cgroup", "kn")?,
        kn_id: at("kernfs_node.id", "kernfs_node", "id")?,
        cgroup_root: at("cgroup.root", "cgroup", "root")?,
        root_hierarchy: at("cgroup_root.hierarchy_id", "cgroup_root", "hierarchy_id")?,
    })
}

/// Offset in bytes of a field, also inside anonymous structures and unions.
fn offset(btf: &Btf, structure: &str, field: &str) -> Option<u32> {
    btf.resolve_types_by_name(structure).ok()?.into_iter().find_map(|found| match found {
        Type::Struct(found) => member(btf, &found, field),
        _ => None,
    })
}

fn member(btf: &Btf, structure: &btf_rs::Struct, field: &str) -> Option<u32> {
    for found in &structure.members {
        let name = btf.resolve_name(found).unwrap_or_default();
        let start = found.bit_offset() / 8;
        if name == field {
            return Some(start);
        }
        if name.is_empty() {
            let inner = match btf.resolve_chained_type(found).ok()? {
                Type::Struct(inner) | Type::Union(inner) => member(btf, &inner, field),
                _ => None,
            };
            if let Some(inner) = inner {
                return Some(start + inner);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_tells_every_offset() {
        let offsets = read().unwrap();
        assert!(offsets.cred > 0 && offsets.mm > 0 && offsets.mm_exe_file > 0);
        assert_eq!(offsets.cred_gid, offsets.cred_uid + 4, "uid and gid are neighbours");
    }
}
