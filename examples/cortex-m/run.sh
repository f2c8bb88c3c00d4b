#!/bin/sh
# run.sh ELF: runs a firmware in QEMU; BOARD is an386 (Cortex-M4), an500 (M7), an547 (M55) or virt (RV32).
case ${BOARD:?one of an386, an500, an547, virt} in
an386 | an500) machine="qemu-system-arm -M mps2-$BOARD" shift=6 ;;
an547) machine="qemu-system-arm -M mps3-an547" shift=6 ;;
virt) machine="qemu-system-riscv32 -M virt -bios none" shift=0 ;;
*) echo "no board $BOARD" >&2 && exit 2 ;;
esac
# With -icount every instruction takes 2^shift ns of the machine's time: its timers count instructions.
exec $machine -nographic -monitor none -serial none -semihosting-config enable=on,target=native -icount shift=$shift -kernel "$1"
