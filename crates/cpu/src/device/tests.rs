//! Memory, panics and roles of buffers of the CPU device.

use super::*;

fn is_out_of_memory<T>(result: Result<T>) -> bool {
    matches!(result, Err(DeviceError::OutOfMemory { needed_bytes, .. }) if needed_bytes >= 1 << 60)
}

#[test]
fn memory_that_cannot_be_had_is_an_error_and_the_device_stays_usable() -> Result<()> {
    // One length is more than a layout may have, the other more than any machine has.
    for (len, precision) in [
        (usize::MAX / 8, Precision::F32),
        (1 << 59, Precision::F32),
        (1 << 59, Precision::Bf16),
    ] {
        let cpu = Cpu::with_precision(Some(2), precision);
        for role in [
            Role::Activation,
            Role::Index,
            Role::Scores,
            Role::Accumulator,
        ] {
            assert!(is_out_of_memory(cpu.alloc(len, role)), "{role:?}");
            let mut buffer = Buffer::empty();
            let taken = cpu.temporary(len, role, &mut buffer);
            assert!(is_out_of_memory(taken), "{role:?}");
        }
        let lines = cpu.exec(|exec| exec.scratch.take_lines(len).len());
        assert!(is_out_of_memory(lines));
        let blocks = cpu.exec(|exec| exec.run(3, len, |_, _| unreachable!("no memory")));
        assert!(is_out_of_memory(blocks));
        // The memory that a kernel held when it unwound was returned, and kernels run again.
        let shared = cpu.exec(|exec| {
            let held = exec.scratch.take_shared(1000);
            held.len() + exec.scratch.take_shared(len).len()
        });
        assert!(is_out_of_memory(shared));
        assert_eq!(cpu.usage().temporary, 0);
        let x = cpu.alloc_from(vec![3.0, 4.0], Role::Activation)?;
        let mut sum = cpu.alloc(1, Role::Accumulator)?;
        cpu.sum_of_squares(&x, &mut sum, 0)?;
        let mut host = [0.0];
        cpu.read_accumulator(&sum, &mut host)?;
        assert_eq!(host, [25.0]);
    }
    Ok(())
}

#[test]
#[should_panic(expected = "a mistake")]
fn other_panics_stay_panics() {
    let _ = Cpu::new(Some(1)).exec(|_| panic!("a mistake"));
}

#[test]
#[should_panic(expected = "used as its role says")]
fn indices_are_not_numbers() {
    let cpu = Cpu::new(Some(1));
    let index = cpu.alloc(3, Role::Index).expect("memory");
    let mut y = cpu.alloc(3, Role::Activation).expect("memory");
    let _ = cpu.add(&index, &mut y);
}
