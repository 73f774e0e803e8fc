//! The CPUs on which a process runs.
//!
//! Runs in a task, as the user.
#![expect(unsafe_code, reason = "nix's set of CPUs has 1024 of them")]

use std::collections::BTreeSet;

/// More CPUs than any kernel is built for; the kernel ignores bits of CPUs that the node lacks.
const CPUS: usize = 8192;
const BITS: usize = libc::c_ulong::BITS as usize;

/// The kernel's own form.
type Mask = [libc::c_ulong; CPUS / BITS];

/// Lets this process run on all CPUs of its cgroup ([`super::cgroup::Cgroups::limit_cpus`]): Slurm binds a task that launches
/// others to the CPUs of one task.
pub fn widen() {
    set(&[libc::c_ulong::MAX; CPUS / BITS]);
}

/// Lets this process run on `cpus`, if all those on which it runs are among them.
pub fn widen_to(cpus: &BTreeSet<usize>) {
    let mut wider = [0; CPUS / BITS];
    for cpu in cpus {
        if let Some(part) = wider.get_mut(cpu / BITS) {
            *part |= 1 << (cpu % BITS);
        }
    }
    let is_wider = |own: Mask| own.iter().zip(&wider).all(|(own, wider)| own & !wider == 0);
    if get().is_some_and(is_wider) {
        set(&wider);
    }
}

fn get() -> Option<Mask> {
    let mut own: Mask = [0; CPUS / BITS];
    // SAFETY: the pointer and the length describe `own`.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<Mask>(), own.as_mut_ptr().cast()) };
    (result == 0).then_some(own)
}

fn set(mask: &Mask) {
    // SAFETY: the pointer and the length describe `mask`. The kernel leaves out CPUs that the cgroup does not
    // allow.
    let _ = unsafe { libc::sched_setaffinity(0, size_of::<Mask>(), mask.as_ptr().cast()) };
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn own() -> BTreeSet<usize> {
        let mask = get().unwrap();
        (0..CPUS).filter(|cpu| mask[cpu / BITS] & (1 << (cpu % BITS)) != 0).collect()
    }

    /// The CPUs of a thread that has one, and then may have `cpus`.
    fn widened_from(one: usize, cpus: &BTreeSet<usize>) -> BTreeSet<usize> {
        let thread = || {
            let mut mask = [0; CPUS / BITS];
            mask[one / BITS] |= 1 << (one % BITS);
            set(&mask);
            assert_eq!(own(), BTreeSet::from([one]));
            widen_to(cpus);
            own()
        };
        thread::scope(|scope| scope.spawn(thread).join().unwrap())
    }

    #[test]
    fn process_gets_wider_never_other_cpus() {
        let all = own();
        let one = *all.first().unwrap();
        assert_eq!(widened_from(one, &all), all);
        // CPUs that the node lacks.
        let more: BTreeSet<usize> = all.iter().copied().chain([CPUS - 1, CPUS]).collect();
        assert_eq!(widened_from(one, &more), all);
        let others: BTreeSet<usize> = all.iter().copied().filter(|cpu| *cpu != one).collect();
        assert_eq!(widened_from(one, &others), BTreeSet::from([one]));
        assert_eq!(widened_from(one, &BTreeSet::new()), BTreeSet::from([one]));
    }

    #[test]
    fn process_of_a_cgroup_gets_all_its_cpus() {
        let all = own();
        let thread = || {
            widen();
            own()
        };
        let widened = thread::scope(|scope| scope.spawn(thread).join().unwrap());
        assert!(widened.is_superset(&all), "{widened:?}");
    }
}
