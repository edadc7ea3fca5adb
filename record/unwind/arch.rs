//! The unwinder of the machine that this runs on, which is the one that was recorded.

#[cfg(target_arch = "x86_64")]
mod own {
    pub type Unwinder<D> = framehop::x86_64::UnwinderX86_64<D>;
    pub type Cache = framehop::x86_64::CacheX86_64;
    pub type Registers = framehop::x86_64::UnwindRegsX86_64;

    pub fn registers([ip, sp, fp, _]: [u64; 4]) -> Registers {
        Registers::new(ip, sp, fp)
    }
}

#[cfg(target_arch = "aarch64")]
mod own {
    use framehop::aarch64::PtrAuthMask;

    pub type Unwinder<D> = framehop::aarch64::UnwinderAarch64<D>;
    pub type Cache = framehop::aarch64::CacheAarch64;
    pub type Registers = framehop::aarch64::UnwindRegsAarch64;

    pub fn registers([_, sp, fp, lr]: [u64; 4]) -> Registers {
        // Addresses of user space have 48 bits; those above may sign a return address.
        Registers::new_with_ptr_auth_mask(PtrAuthMask::from_max_known_address((1 << 48) - 1), lr, sp, fp)
    }
}

pub use own::{Cache, Unwinder, registers};
