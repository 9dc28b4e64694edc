"""The files of systems as they are found in the field, written under a folder that stands for /.

The sizes are what the kernel shows; names are shortened. `GIB` and `MIB` are the units of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tightrun.runtime.meminfo import Held

System = Callable[[Path], Path]
MIB, GIB = 2**20, 2**30
# What cgroup v1 shows where there is no limit.
V1_NONE = 9223372036854771712

MEMINFO = """\
MemTotal:       263855112 kB
MemFree:        201326592 kB
MemAvailable:   {available} kB
Buffers:          204028 kB
Cached:         41943040 kB
"""


def write(root: Path, files: Mapping[str, str | int]) -> Path:
    """Writes files by their path below `root`; returns `root`."""
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n" if isinstance(text, int) or text[-1:] != "\n" else text)
    return root


def host(root: Path, available_bytes: int = 240 * GIB, resident_bytes: int = 100 * MIB) -> Path:
    """A machine of 252 GiB and a process on it; pages are of 4 KiB."""
    holds = held(resident_bytes)
    virtual, resident, data = (n // 4096 for n in (holds.virtual, holds.resident, holds.data))
    return write(
        root,
        {
            "proc/meminfo": MEMINFO.format(available=available_bytes // 1024),
            "proc/self/statm": f"{virtual} {resident} 2048 1200 0 {data} 0",
            "proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=12\n"
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
        },
    )


def held(resident_bytes: int = 100 * MIB) -> Held:
    """What the process of `host` holds."""
    return Held(resident_bytes, 4 * resident_bytes, 2 * resident_bytes)


V2_MOUNTS = """\
22 28 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
28 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro
31 22 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec shared:9 - cgroup2 cgroup2 rw,nsdelegate
60 28 0:41 / /dev/shm rw,nosuid,nodev shared:4 - tmpfs tmpfs rw,inode64
71 28 0:52 / /home rw,relatime shared:30 - nfs4 filer:/home rw,vers=4.2,proto=tcp
"""


def group_v2(
    path: str,
    current: int,
    *,
    max: int | str = "max",
    high: int | str = "max",
    inactive_file: int = 0,
    events: str = "",
) -> dict[str, str | int]:
    """The memory files of a v2 group at a path below /sys/fs/cgroup."""
    anon = current - inactive_file
    folder = f"sys/fs/cgroup{path}"
    none = "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"
    return {
        f"{folder}/memory.current": current,
        f"{folder}/memory.max": max,
        f"{folder}/memory.high": high,
        f"{folder}/memory.stat": f"anon {anon}\nfile {inactive_file}\nkernel 0\nshmem 0\n"
        f"inactive_anon 0\nactive_anon {anon}\ninactive_file {inactive_file}\nactive_file 0\n",
        f"{folder}/memory.events": events or none,
        f"{folder}/memory.events.local": events or none,
    }


def systemd_v2(root: Path) -> Path:
    """A service in a slice: the slice may use 64 GiB, the service is slowed down at 16 GiB."""
    host(root)
    return write(
        root,
        {
            "proc/self/cgroup": "0::/batch.slice/job.service\n",
            "proc/self/mountinfo": V2_MOUNTS,
            **group_v2("/batch.slice", 20 * GIB, max=64 * GIB, inactive_file=4 * GIB),
            **group_v2("/batch.slice/job.service", 3 * GIB, high=16 * GIB, inactive_file=2 * GIB),
            # The root of all groups has a memory.stat and a pressure file, but no limit.
            "sys/fs/cgroup/memory.stat": "anon 5\nfile 9\ninactive_file 9\n",
            "sys/fs/cgroup/batch.slice/cpu.max": "max 100000",
            "sys/fs/cgroup/batch.slice/job.service/cpu.max": "350000 100000",
        },
    )


def group_v1(
    path: str,
    usage: int,
    limit: int = V1_NONE,
    inactive_file: int = 0,
    above: int | None = None,
    use_hierarchy: int = 1,
) -> dict[str, str | int]:
    """The memory files of a v1 group; `above` is the least limit of it and of those above it."""
    folder = f"sys/fs/cgroup/memory{path}"
    return {
        f"{folder}/memory.usage_in_bytes": usage,
        f"{folder}/memory.limit_in_bytes": limit,
        f"{folder}/memory.use_hierarchy": use_hierarchy,
        f"{folder}/memory.stat": f"cache {inactive_file}\nrss {usage - inactive_file}\n"
        f"inactive_file 0\nhierarchical_memory_limit {above or limit}\n"
        f"total_cache {inactive_file}\ntotal_inactive_file {inactive_file}\n",
        f"{folder}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
    }


V1_MOUNTS = """\
24 1 253:0 / / rw,relatime shared:1 - xfs /dev/mapper/centos-root rw,attr2,inode64,noquota
29 20 0:24 {inner} /sys/fs/cgroup/memory rw,nosuid,nodev,noexec shared:12 - cgroup cgroup rw,memory
30 20 0:25 {inner} /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev - cgroup cgroup rw,cpuacct,cpu
31 20 0:22 {inner} /sys/fs/cgroup/systemd rw,nosuid - cgroup cgroup rw,xattr,name=systemd
"""


def slurm_v1(root: Path) -> Path:
    """A Slurm job on a cluster with cgroup v1: 32 GiB for the job, 24 GiB for its step."""
    host(root)
    job = "/slurm/uid_1001/job_512"
    return write(
        root,
        {
            "proc/self/cgroup": f"11:memory:{job}/step_0/task_0\n10:cpuset:{job}/step_0\n"
            f"4:cpuacct,cpu:{job}\n1:name=systemd:/system.slice/slurmd.service\n",
            "proc/self/mountinfo": V1_MOUNTS.format(inner="/"),
            **group_v1("", 60 * GIB),
            **group_v1("/slurm", 40 * GIB),
            **group_v1("/slurm/uid_1001", 40 * GIB),
            **group_v1(job, 10 * GIB, 32 * GIB, inactive_file=1 * GIB),
            **group_v1(f"{job}/step_0", 6 * GIB, 24 * GIB, inactive_file=1 * GIB),
            **group_v1(f"{job}/step_0/task_0", 6 * GIB, inactive_file=1 * GIB, above=24 * GIB),
            f"sys/fs/cgroup/cpu,cpuacct{job}/cpu.cfs_quota_us": 800000,
            f"sys/fs/cgroup/cpu,cpuacct{job}/cpu.cfs_period_us": 100000,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": -1,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": 100000,
        },
    )


def hybrid(root: Path) -> Path:
    """systemd's hybrid layout: the controllers in v1, a v2 tree without any beside them."""
    host(root)
    unified = "33 20 0:23 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
    return write(
        root,
        {
            "proc/self/cgroup": "9:memory:/user.slice/job\n2:cpu,cpuacct:/user.slice\n"
            "1:name=systemd:/user.slice/session-3.scope\n0::/user.slice/session-3.scope\n",
            "proc/self/mountinfo": V1_MOUNTS.format(inner="/") + unified,
            **group_v1("", 60 * GIB),
            **group_v1("/user.slice", 9 * GIB),
            **group_v1("/user.slice/job", 2 * GIB, 8 * GIB),
            "sys/fs/cgroup/unified/user.slice/session-3.scope/cgroup.procs": 712,
            "sys/fs/cgroup/cpu,cpuacct/user.slice/cpu.cfs_quota_us": -1,
            "sys/fs/cgroup/cpu,cpuacct/user.slice/cpu.cfs_period_us": 100000,
        },
    )


def docker_v2(root: Path) -> Path:
    """`docker run --memory 4g --cpus 1.5`: a namespace of its own, but the host's meminfo."""
    host(root)
    return write(
        root,
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": "1022 1021 0:31 / /sys/fs/cgroup ro,nosuid,nodev,noexec "
            "- cgroup2 cgroup rw,nsdelegate,memory_recursiveprot\n"
            "1020 980 0:330 / / rw,relatime - overlay overlay rw,lowerdir=/var/lib/docker/l/A\n",
            **group_v2("", 300 * MIB, max=4 * GIB, inactive_file=44 * MIB),
            "sys/fs/cgroup/cpu.max": "150000 100000",
        },
    )


def docker_v1(root: Path) -> Path:
    """A container without a namespace: paths are the host's, only its own part is mounted."""
    host(root)
    inner = "/docker/5f3c"
    return write(
        root,
        {
            "proc/self/cgroup": f"9:memory:{inner}\n5:cpu,cpuacct:{inner}\n",
            "proc/self/mountinfo": V1_MOUNTS.format(inner=inner),
            **group_v1("", 1 * GIB, 4 * GIB),
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": 50000,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": 100000,
        },
    )


def kubernetes_v1(root: Path) -> Path:
    """A container without a limit in a pod that has one, which shows only as the one above."""
    host(root)
    inner = "/kubepods/burstable/pod7b1e/9ac4"
    return write(
        root,
        {
            "proc/self/cgroup": f"7:memory:{inner}\n3:cpu,cpuacct:{inner}\n",
            "proc/self/mountinfo": V1_MOUNTS.format(inner=inner),
            **group_v1("", 1 * GIB, above=6 * GIB),
        },
    )


def kubernetes_v2(root: Path) -> Path:
    """A pod with the host's groups mounted: the pod's limit is tighter than the container's."""
    host(root)
    pod = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7b1e.slice"
    return write(
        root,
        {
            "proc/self/cgroup": f"0::{pod}/cri-containerd-9ac4.scope\n",
            "proc/self/mountinfo": V2_MOUNTS,
            **group_v2("/kubepods.slice", 90 * GIB, max=200 * GIB),
            **group_v2("/kubepods.slice/kubepods-burstable.slice", 50 * GIB),
            **group_v2(pod, 7 * GIB, max=12 * GIB),
            **group_v2(f"{pod}/cri-containerd-9ac4.scope", 1 * GIB, max=10 * GIB),
            f"sys/fs/cgroup{pod}/cpu.max": "400000 100000",
            f"sys/fs/cgroup{pod}/cri-containerd-9ac4.scope/cpu.max": "600000 100000",
        },
    )
