"""Weights of 4 or 8 bits as torchao's tensors, and packed for a file."""

import torch
from torchao.quantization import choose_qparams_affine
from torchao.quantization import IntxUnpackedToInt8Tensor
from torchao.quantization import MappingType

BITS = (4, 8)


def integer_range(bits: int) -> tuple[int, int]:
    """Return the lowest and highest integer. Raises ValueError for other bits than 4 and 8."""
    if bits not in BITS:
        raise ValueError(f'bits is {bits}; expected one of {BITS}')
    return -2 ** (bits - 1), 2 ** (bits - 1) - 1


def group_scales(weight: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """Return torchao's symmetric scales [N, K / group] of a weight [N, K]."""
    lowest, highest = integer_range(bits)
    scale, _ = choose_qparams_affine(weight, MappingType.SYMMETRIC, (1, group), torch.int8,
                                     lowest, highest)
    return scale.reshape(len(weight), -1)


def make_tensor(
    integers: torch.Tensor, scale: torch.Tensor, bits: int, group: int, dtype: torch.dtype,
) -> IntxUnpackedToInt8Tensor:
    """Return a weight [N, K], or [N, C, h, w] with groups of C, that dequantises as it is used.

    In memory an integer takes a byte, also one of 4 bits: packed kernels exist for CUDA only.
    """
    block = (1, group, *(1 for _ in integers.shape[2:]))
    return IntxUnpackedToInt8Tensor(
        integers, scale.to(dtype), torch.zeros(scale.shape, dtype=torch.int8),
        getattr(torch, f'int{bits}'), block, dtype, None,
    )


def rounded(weight: torch.Tensor, bits: int, group: int) -> IntxUnpackedToInt8Tensor:
    """Round a weight to nearest; shapes as in `make_tensor`."""
    block = (1, group, *(1 for _ in weight.shape[2:]))
    return IntxUnpackedToInt8Tensor.from_hp(weight.detach().contiguous(), block,
                                            getattr(torch, f'int{bits}'))


def pack(integers: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the integers as a file holds them: two of 4 bits a byte, flat; of 8 bits as is."""
    if bits == 8:
        return integers.contiguous()
    flat = integers.flatten().to(torch.uint8) & 15
    if len(flat) % 2:
        flat = torch.cat([flat, flat.new_zeros(1)])
    return flat[::2] | flat[1::2] << 4


def unpack(packed: torch.Tensor, bits: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Invert `pack`."""
    if bits == 8:
        return packed
    halves = torch.stack([packed & 15, packed >> 4], 1).flatten().to(torch.int8)
    halves = torch.where(halves > 7, halves - 16, halves)
    return halves[: torch.Size(shape).numel()].reshape(shape)
