"""Which transformation reproduces which recorded case: one line each.

The name of a case is `source:id`; what the authors' own optimizer was called with stands in the manifest beside the
data. `TRAJECTORIES` are runs with recorded gradients, `FUNCTIONS` runs on a function, `SCHEDULES` values by step,
`PLATEAUS` rates that follow a recorded metric; `LEFT_OUT` says of the other cases why they are not reproduced. Every
recorded case is in exactly one of them.
"""

import functools
from typing import Any

import jax.numpy as jnp

import gradtx as gx
from gradtx import tree


def reasons(table: dict[str, dict[str, str]]) -> dict[str, str]:
    """`{"source:id": reason}` of `{reason: {source: "id id ..."}}`."""
    return {
        f"{source}:{case}": reason
        for reason, by_source in table.items()
        for source, ids in by_source.items()
        for case in ids.split()
    }


def zero_at_first(schedule: Any, t: Any) -> Any:
    """A schedule whose package has a rate of 0 until its first step."""
    return jnp.where(t == 0, 0.0, schedule(t))


ascent = gx.scale(-1.0)
"What torch calls `maximize`: the gradient turned round before anything else."

decay = gx.add_decayed_weights
"Before an optimizer an L2 penalty, torch's `weight_decay`; before the learning rate, decoupled."

rate = gx.scale_by_learning_rate

keller = {"eps": 1e-7, "form": "mean", "muon_weight_dimension_numbers": gx.MuonDimensionNumbers(1, 0)}
"Jordan's Muon, and torch's: weights of shape (out, in), a mean that is not debiased."


def by_mask(mask, inside, outside):
    """One transformation for the leaves in the mask, another for the rest."""
    return gx.partition({"inside": inside, "outside": outside}, gx.label_by_mask(mask, "inside", "outside"))


matrices = {"v5": False, "m4x3": True, "m8x16": True}


TRAJECTORIES = {
    # Gradient descent.
    "torch_optim:sgd_0_A": gx.sgd(0.1),
    "torch_optim:sgd_1_A": gx.sgd(0.05, 0.9),
    "torch_optim:sgd_2_B": gx.chain(decay(0.05), gx.sgd(0.03, 0.8, nesterov=True)),
    "torch_optim:sgd_3_A": gx.chain(ascent, decay(0.1), gx.sgd(0.05, 0.9, dampening=0.4)),
    "pytorch_optimizer:sgdw_0_A": gx.chain(gx.trace(0.9), decay(0.1), rate(0.05)),
    "keras3:SGD__default": gx.sgd(0.01),
    "keras3:SGD__momentum": gx.sgd(0.02, 0.9),
    "keras3:SGD__nesterov": gx.sgd(0.02, 0.9, nesterov=True),
    "keras3:SGD__weight_decay": gx.chain(gx.trace(0.5), decay(0.1), rate(0.05)),
    "keras3:SGD__weight_decay_exclude": gx.chain(
        decay(0.1, mask={"scale": True, "bias": False, "kernel": True, "cube": False}), gx.sgd(0.05)
    ),
    "keras3:SGD__schedule_exponential": gx.sgd(gx.exponential_decay(0.1, 7, 0.5)),
    "keras3:SGD__schedule_piecewise": gx.chain(  # Keras has the rate inside the momentum
        rate(gx.piecewise_constant_schedule(0.1, {4: 0.5, 9: 0.2})), gx.trace(0.5)
    ),
    "keras224:SGD__decay": gx.sgd(gx.inverse_time_decay(0.05, 0.1)),
    "natural_bm:SGD__ramp_slow": gx.chain(
        rate(gx.inverse_time_decay(0.05, 1e-6)), gx.trace(gx.momentum_ramp(0.8, 2.0, 60))
    ),
    "natural_bm:SGD__ramp_switch": gx.chain(
        rate(gx.inverse_time_decay(0.05, 1e-3)), gx.trace(gx.momentum_ramp(0.9, 0.5, 10))
    ),
    "torch_optim:asgd_0_A": gx.asgd(),
    "torch_optim:asgd_1_A": gx.chain(decay(0.01), gx.asgd(0.05, 0.01, 0.6, 5.0)),
    "optax:optimistic_gradient_descent_0_A": gx.optimistic_gradient_descent(0.05),
    "optax:polyak_sgd_0_A": gx.chain(gx.sgd(0.5), gx.scale_by_polyak()),  # optax scales first
    "optax:fromage_0_A": gx.fromage(0.01),
    # Signs.
    "optax:signum_0_A": gx.signum(0.01),
    "pytorch_optimizer:signsgd_0_A": gx.signum(0.01),
    "pytorch_optimizer:tiger_0_A": gx.tiger(0.01),
    "torch_optim:rprop_0_A": gx.rprop(0.01),
    "torch_optim:rprop_1_A": gx.rprop(0.05, 0.4, 1.3, 1e-4, 0.1),
    "torch_optim:rprop_2_C": gx.rprop(0.02),
    # Adagrad and its kin.
    "torch_optim:adagrad_0_A": gx.adagrad(0.01, 0.0, 1e-10, eps_in_sqrt=False),
    "torch_optim:adagrad_1_B": gx.chain(
        decay(0.05), gx.adagrad(gx.inverse_time_decay(0.1, 0.05), 0.1, 1e-6, eps_in_sqrt=False)
    ),
    "torch_optim:adagrad_2_C": gx.chain(ascent, gx.adagrad(0.1, 0.0, 1e-10, eps_in_sqrt=False)),
    "keras3:Adagrad__default": gx.adagrad(1e-3),
    "keras3:Adagrad__acc0": gx.adagrad(0.1, 0.0, 1e-4),
    "keras224:Adagrad__default": gx.adagrad(0.01, 0.0, eps_in_sqrt=False),
    "keras224:Adagrad__decay_eps": gx.adagrad(gx.inverse_time_decay(0.1, 0.05), 0.0, 1e-4, eps_in_sqrt=False),
    "torch_optim:adadelta_0_A": gx.adadelta(1.0),
    "torch_optim:adadelta_1_B": gx.adadelta(0.5, 0.8, 1e-4, weight_decay=0.1),
    "keras3:Adadelta__default": gx.adadelta(1e-3, 0.95, 1e-7),
    "keras3:Adadelta__lr1": gx.adadelta(1.0),
    "keras224:Adadelta__rho_eps_decay": gx.adadelta(gx.inverse_time_decay(0.5, 0.1), 0.9, 1e-5),
    "tf115:tf-train-AdadeltaOptimizer__docs": gx.adadelta(1.0, 0.95, 1e-8),
    "pytorch_optimizer:ftrl_0_A": gx.ftrl(0.1, initial_accumulator_value=0.0),
    "pytorch_optimizer:ftrl_1_B": gx.ftrl(0.2, initial_accumulator_value=0.0, beta=0.1, l1=0.01, l2=0.01),
    "keras:ftrl_0_A": gx.ftrl(0.1, l1=0.01, l2=0.02),
    "keras3:Ftrl__default": gx.ftrl(1e-3),
    "keras3:Ftrl__l1_l2": gx.ftrl(0.1, l1=0.01, l2=0.02),
    "keras3:Ftrl__shrinkage_beta": gx.ftrl(0.1, l2_shrinkage=0.05, beta=0.3),
    "optax:sm3_0_A": gx.sm3(0.1),
    "pytorch_optimizer:sm3_0_A": gx.chain(gx.scale_by_sm3(0.0, eps=1e-30), rate(0.1)),
    "madgrad:madgrad_0_A": gx.madgrad(0.01),
    "madgrad:madgrad_1_B": gx.madgrad(0.02, 0.5, eps=1e-4, weight_decay=0.05),
    "optax:madgrad_0_A": gx.madgrad(0.01),
    "pytorch_optimizer:madgrad_0_A": gx.madgrad(0.01),
    "pytorch_optimizer:madgrad_1_B": gx.madgrad(0.02, 0.5, eps=1e-4, weight_decay=0.05),
    "timm:madgrad_0_A": gx.chain(gx.scale_by_madgrad(0.01), ascent, decay(0.9 * 0.01 * 0.05), ascent),
    # RMSprop.
    "torch_optim:rmsprop_0_A": gx.rmsprop(0.01, 0.99, eps_in_sqrt=False),
    "torch_optim:rmsprop_1_A": gx.rmsprop(0.01, 0.9, 1e-6, eps_in_sqrt=False, centered=True),
    "torch_optim:rmsprop_2_B": gx.chain(decay(0.1), gx.rmsprop(0.005, 0.95, eps_in_sqrt=False, momentum=0.9)),
    "torch_optim:rmsprop_3_A": gx.chain(ascent, gx.rmsprop(0.01, 0.9, eps_in_sqrt=False, centered=True, momentum=0.8)),
    "torch_optim:rmsprop_4_C": gx.rmsprop(0.01, 0.99, eps_in_sqrt=False),
    "optax:rmsprop_0_A": gx.rmsprop(0.01, centered=True, momentum=0.9, nesterov=True),
    "timm:rmsproptf_0_A": gx.rmsprop(0.01, 0.9, 1e-10, 1.0),
    "timm:rmsproptf_1_B": gx.chain(gx.scale_by_rms(0.95, 1e-10, 1.0), gx.trace(0.9), decay(0.05), rate(0.01)),
    "keras3:RMSprop__default": gx.rmsprop(1e-3, 0.9, 1e-7),
    "keras3:RMSprop__momentum": gx.rmsprop(0.01, 0.9, 1e-3, momentum=0.9),
    "keras3:RMSprop__centered": gx.rmsprop(0.01, 0.9, 1e-2, centered=True),
    "keras3:RMSprop__centered_momentum": gx.rmsprop(0.01, 0.8, 1e-2, centered=True, momentum=0.5),
    "keras224:RMSprop__rho_eps": gx.rmsprop(0.01, 0.95, 1e-3, eps_in_sqrt=False),
    "keras224:RMSprop__decay": gx.rmsprop(gx.inverse_time_decay(0.01, 0.1), 0.9, 1e-7, eps_in_sqrt=False),
    # Adam and AdamW.
    "torch_optim:adam_0_A": gx.adam(1e-3),
    "torch_optim:adam_1_A": gx.chain(decay(0.1), gx.adam(0.01, 0.8, 0.95, 1e-6)),
    "torch_optim:adam_3_B": gx.chain(ascent, decay(0.05), gx.adam(0.01)),
    "torch_optim:adam_4_C": gx.adam(0.01),
    "torch_optim:adamw_0_A": gx.adamw(1e-3, weight_decay=0.01),
    "torch_optim:adamw_1_A": gx.adamw(0.01, 0.9, 0.95, weight_decay=0.1),
    "torch_optim:adamw_3_A": gx.chain(ascent, gx.adamw(0.01, weight_decay=0.01)),
    "torch_optim:adamw_4_C": gx.adamw(0.01, weight_decay=0.1),
    "optax:optimistic_adam_v2_0_A": gx.optimistic_adam_v2(0.01),
    "optimi:adamw_0_A": gx.chain(
        gx.adam(0.01, 0.9, 0.99, 1e-6), gx.decay_weights(1e-3, learning_rate=0.01, max_learning_rate=0.02)
    ),
    "tf115:tf-contrib-opt-AdamWOptimizer__docs": gx.adamw_tf1(0.01, 1e-6),
    "tf115:tf-contrib-opt-AdamWOptimizer__strong": gx.adamw_tf1(0.01, 0.05, 0.8, eps=1e-4),
    # Adam in Keras.
    "keras224:Adam__default": gx.adam(1e-3, eps=1e-7, eps_hat=True),
    "keras224:Adam__betas_eps": gx.adam(0.01, 0.8, 0.99, 1e-4, eps_hat=True),
    "keras3:AdamW__default": gx.adamw(1e-3, eps=1e-7, weight_decay=4e-3, eps_hat=True),
    "keras:adam_0_A": gx.chain(gx.clip_by_norm(0.5), gx.adam(0.01, eps=1e-7, eps_hat=True)),
    "keras:adam_1_A": gx.chain(gx.clip_by_global_norm(1.0), gx.adam(0.01, eps=1e-7, eps_hat=True)),
    "keras:adam_3_A": gx.accumulate(gx.adam(0.01, eps=1e-7, eps_hat=True), 4),
    "keras:adam_4_C": gx.amsgrad(0.01, eps=1e-7, correct_maximum=True, eps_hat=True),
    # AMSGrad.
    "torch_optim:adam_2_A": gx.amsgrad(0.02, correct_maximum=True),
    "torch_optim:adam_5_C": gx.chain(decay(0.1), gx.amsgrad(0.01, correct_maximum=True)),
    "torch_optim:adamw_2_B": gx.chain(gx.scale_by_amsgrad(eps=1e-5, correct_maximum=True), decay(0.3), rate(0.02)),
    "optax:amsgrad_0_A": gx.amsgrad(0.01),
    # Adamax.
    "torch_optim:adamax_0_A": gx.adamax(0.01),
    "torch_optim:adamax_1_B": gx.chain(decay(0.1), gx.adamax(0.02, 0.8, 0.9, 1e-5)),
    "torch_optim:adamax_2_C": gx.chain(ascent, gx.adamax(0.01)),
    "optax:adamaxw_0_A": gx.adamaxw(0.01, weight_decay=0.1),
    "keras3:Adamax__default": gx.adamax(1e-3, eps=1e-7, eps_in_max=False),
    "keras3:Adamax__betas": gx.adamax(0.01, 0.8, 0.9, 1e-3, eps_in_max=False),
    # Nadam.
    "torch_optim:nadam_0_A": gx.nadam(2e-3, momentum_decay=4e-3),
    "torch_optim:nadam_1_A": gx.chain(decay(0.1), gx.nadam(0.01, 0.85, 0.95, momentum_decay=0.01)),
    "torch_optim:nadam_2_B": gx.nadamw(0.01, weight_decay=0.1, momentum_decay=4e-3),
    "optax:nadamw_0_A": gx.nadamw(0.01, weight_decay=0.1),
    "timm:nadamw_0_A": gx.nadamw_algoperf(0.01),
    "timm:nadamw_1_B": gx.nadamw_algoperf(0.02, 0.9, 0.95, weight_decay=0.1),
    "keras:nadam_0_A": gx.nadam(0.01, eps=1e-7, momentum_decay=1.0),
    "keras3:Nadam__default": gx.nadam(1e-3, eps=1e-7, momentum_decay=1.0),
    "keras3:Nadam__betas_eps": gx.nadam(0.01, 0.8, 0.98, 1e-4, momentum_decay=1.0),
    "natural_bm:Nadam__schedule_decay": gx.nadam(0.01, eps=1e-4, momentum_decay=0.1),
    "keras224:Nadam__default": gx.nadam(2e-3, eps=1e-7, momentum_decay=4e-3),
    "keras224:Nadam__schedule_decay": gx.nadam(0.01, eps=1e-4, momentum_decay=0.1),
    # RAdam.
    "torch_optim:radam_0_A": gx.radam(0.01),
    "torch_optim:radam_1_A": gx.chain(decay(0.1), gx.radam(0.02, 0.9, 0.95)),
    "torch_optim:radam_2_B": gx.chain(gx.scale_by_radam(0.8, 0.9), decay(0.1), rate(0.02)),
    "optax:radam_0_A": gx.radam(0.01),
    "pytorch_optimizer:radam_1_A": gx.chain(gx.scale_by_radam(0.9, 0.95), decay(0.1), rate(0.02)),
    "optimi:radam_0_A": gx.chain(decay(0.1), gx.radam(0.01, 0.9, 0.99, 1e-6)),
    # Other second moments.
    "adabelief_pytorch:adabelief_0_A": gx.adabelief(0.01),
    "adabelief_pytorch:adabelief_1_B": gx.chain(gx.scale_by_belief(0.85, 0.95, rectify=True), decay(0.1), rate(0.01)),
    "optax:adabelief_0_A": gx.adabelief(0.01),
    "pytorch_optimizer:adabelief_0_A": gx.adabelief(0.01),
    "pytorch_optimizer:adabelief_1_B": gx.chain(gx.scale_by_belief(0.85, 0.95, rectify=True), decay(0.1), rate(0.01)),
    "timm:adabelief_0_A": gx.chain(gx.scale_by_belief(rectify=True), decay(0.1), rate(0.01)),
    "optax:yogi_0_A": gx.yogi(0.01),
    "timm:adan_0_A": gx.adan(0.01),
    "pytorch_optimizer:adan_0_A": gx.adan(0.01),
    "pytorch_optimizer:adan_1_B": gx.chain(
        gx.clip_by_global_norm(1.0), gx.scale_by_adan(0.9, 0.85, 0.95), decay(0.1), rate(0.02)
    ),
    "optimi:adan_0_A": gx.adan(0.01, eps=1e-6, weight_decay=0.02),
    "optimi:adan_1_A": gx.adan(0.02, 0.9, 0.85, 0.95, 1e-6, weight_decay=0.1),
    "optax:novograd_0_A": gx.novograd(0.05),
    "timm:nvnovograd_0_A": gx.novograd(0.05, 0.95, 0.98),
    "pytorch_optimizer:novograd_0_A": gx.novograd(0.05, 0.95, 0.98),
    "pytorch_optimizer:novograd_1_B": gx.chain(  # its mean begins at the first term
        gx.scale_by_novograd(0.0, 0.95, weight_decay=0.05), gx.dampened_trace(0.9, 0.9), rate(0.02)
    ),
    # Lion.
    "lion_pytorch:lion_0_A": gx.lion(0.01, weight_decay=0.0),
    "lion_pytorch:lion_1_B": gx.lion(0.01, 0.95, 0.98, weight_decay=0.1),
    "lion_pytorch:lion_3_C": gx.lion(0.01, weight_decay=0.0),
    "optax:lion_0_A": gx.lion(0.01),
    "optimi:lion_0_A": gx.lion(0.01, weight_decay=0.1),
    "pytorch_optimizer:lion_0_A": gx.lion(0.01, weight_decay=0.0),
    "pytorch_optimizer:lion_1_B": gx.lion(0.01, 0.95, 0.98, weight_decay=0.1),
    "keras:lion_0_A": gx.lion(0.01, weight_decay=0.1),
    "keras3:Lion__default": gx.lion(1e-3, weight_decay=0.0),
    "keras3:Lion__wd": gx.lion(0.01, 0.8, 0.95, weight_decay=0.1),
    # LAMB and LARS.
    "optax:lamb_0_A": gx.lamb(0.01),
    "optax:lamb_1_C": gx.lamb(0.02, weight_decay=0.1),
    "keras:lamb_0_A": gx.lamb(0.01, eps=1e-7),
    "keras3:Lamb__default": gx.lamb(1e-3, eps=1e-7),
    "timm:lamb_0_A": gx.chain(gx.clip_by_global_norm(1.0), gx.lamb(0.01, weight_decay=0.01)),
    "timm:lamb_2_C": gx.chain(  # its momentum is a sum: 1 / (1 − β₁) means
        gx.scale_by_adam(eps=1e-6), gx.scale(10.0), decay(0.1), gx.scale_by_trust_ratio(), rate(0.02)
    ),
    "optax:t_trust_ratio_0_C": gx.chain(gx.scale_by_adam(), gx.scale_by_trust_ratio(), gx.scale(-0.02)),
    "optax:lars_0_A": gx.lars(1.0, weight_decay=0.01),
    "pytorch_optimizer:lars_0_A": gx.lars(1.0, trust_ratio_mask=matrices),
    # Adafactor.
    "optax:adafactor_0_A": gx.adafactor(0.05, min_dim_size_to_factor=3),
    "optax:adafactor_1_B": gx.adafactor(1.0, min_dim_size_to_factor=2, momentum=0.9, weight_decay_rate=0.01),
    "keras:adafactor_0_A": gx.adafactor(0.05, min_dim_size_to_factor=1),
    "keras3:Adafactor__default": gx.adafactor(1e-3, min_dim_size_to_factor=1),
    "keras3:Adafactor__norelative": gx.chain(
        gx.scale_by_factored_rms(decay_rate=0.5, min_dim_size_to_factor=1),
        gx.clip_by_block_rms(2.0),
        gx.scale_by_param_block_rms(0.01),
        rate(0.05),
    ),
    "torch_optim:adafactor_0_A": gx.torch_adafactor(0.01),
    "torch_optim:adafactor_1_A": gx.torch_adafactor(0.05, 0.6, 1e-8, 0.01, 1.5, weight_decay=0.1),
    "torch_optim:adafactor_2_B": gx.torch_adafactor(0.05),
    "torch_optim:adafactor_3_C": gx.chain(ascent, gx.torch_adafactor(0.05)),
    # Muon.
    "muon_keller:muon_f32ns_0_A": gx.muon(0.02, **keller),
    "muon_keller:muon_f32ns_1_A": gx.muon(0.03, beta=0.9, weight_decay=0.1, **keller),
    "muon_keller:muon_auxadam_f32ns_0_A": by_mask(
        "^m", gx.muon(0.02, weight_decay=0.01, **keller), gx.adamw(0.003, 0.9, 0.95, 1e-10, weight_decay=0.01)
    ),
    "torch_optim:muon_f32ns_0_A": gx.muon(0.02, weight_decay=0.1, **keller),
    "torch_optim:muon_f32ns_1_A": gx.muon(0.02, ns_steps=4, beta=0.9, weight_decay=0.01, nesterov=False, **keller),
    "torch_optim:muon_f32ns_2_A": gx.muon(0.01, weight_decay=0.1, consistent_rms=0.2, **keller),
    "torch_optim:muon_bf16ns_0_A": gx.muon(0.02, weight_decay=0.1, ns_dtype="bfloat16", **keller),
    "torch_optim:muon_bf16ns_1_A": gx.muon(
        0.02, ns_steps=4, beta=0.9, weight_decay=0.01, nesterov=False, ns_dtype="bfloat16", **keller
    ),
    "torch_optim:muon_bf16ns_2_A": gx.muon(0.01, weight_decay=0.1, consistent_rms=0.2, ns_dtype="bfloat16", **keller),
    "optax:muon_0_A": gx.muon(0.02),
    "optax:muon_1_A": gx.muon(0.02, beta=0.9, weight_decay=0.1, nesterov=False, adaptive=True),
    "optax:muon_2_A": gx.muon(0.02, consistent_rms=0.2),
    "timm:muon_0_A": by_mask(  # small matrices are Adam's
        "m8x16", gx.muon(0.02, "dion", nesterov=False, consistent_rms=0.2, **keller), gx.adam(0.02, 0.9, 0.95)
    ),
    "timm:muon_1_A": by_mask(
        "m8x16",
        gx.muon(0.02, "dion", nesterov=False, consistent_rms=0.2, weight_decay=0.1, **keller),
        gx.adamw(0.02, 0.9, 0.95, weight_decay=0.1),
    ),
    "pytorch_optimizer:muon_f32ns_0_A": gx.muon(0.02, **keller),
    "pytorch_optimizer:muon_f32ns_1_A": gx.muon(
        0.02, beta=0.9, weight_decay=0.05, nesterov=False, consistent_rms=0.2, **keller
    ),
    "keras3:Muon__default": by_mask(
        gx.matrices_only(),
        gx.muon(1e-3, eps=1e-7, weight_decay=0.004, consistent_rms=0.2, form="sum"),
        gx.adamw(1e-3, eps=1e-7, weight_decay=0.004, eps_hat=True),
    ),
    "keras3:Muon__plain": by_mask(
        gx.matrices_only(),
        gx.chain(gx.scale_by_muon(ns_steps=3, beta=0.8, eps=1e-7, nesterov=False, form="sum"), rate(0.02)),
        gx.adam(0.02, eps=1e-7, eps_hat=True),
    ),
    # Step sizes found from distances.
    "prodigyopt:prodigy_0_A": gx.prodigy(),
    "prodigyopt:prodigy_1_A": gx.prodigy(
        estim_lr0=1e-3, weight_decay=0.1, use_bias_correction=True, safeguard_warmup=True
    ),
    "prodigyopt:prodigy_2_B": gx.chain(
        decay(0.05), gx.prodigy(betas=(0.9, 0.95), estim_lr0=1e-3, estim_lr_coef=0.5, growth_rate=1.3)
    ),
    "prodigyopt:prodigy_4_C": gx.prodigy(estim_lr0=1e-3),
    "optax:prodigy_0_A": gx.prodigy(estim_lr0=1e-3, use_bias_correction=True),
    "pytorch_optimizer:prodigy_0_A": gx.prodigy(),
    "pytorch_optimizer:prodigy_1_A": gx.prodigy(
        estim_lr0=1e-3, weight_decay=0.1, use_bias_correction=True, safeguard_warmup=True
    ),
    "dadaptation:dadaptadam_0_A": gx.dadapt_adamw(),
    "dadaptation:dadaptadam_1_A": gx.dadapt_adamw(estim_lr0=1e-3, weight_decay=0.1, growth_rate=1.5),
    "optax:dadapt_adamw_0_A": gx.dadapt_adamw(use_bias_correction=True),
    "optax:dadapt_adamw_1_A": gx.dadapt_adamw(estim_lr0=1e-3, weight_decay=0.1, use_bias_correction=True),
    "pytorch_optimizer:dadaptadam_0_A": gx.dadapt_adamw(),
    "pytorch_optimizer:dadaptadam_1_A": gx.dadapt_adamw(estim_lr0=1e-3, weight_decay=0.1, growth_rate=1.5),
    "dog:dog_0_A": gx.params_average(gx.dog(), gamma=8.0),
    "dog:dog_1_A": gx.params_average(gx.dog(init_step=("heuristic", 0.01), weight_decay=0.1), gamma=8.0),
    "dog:dog_2_B": gx.params_average(gx.dog(init_step=("learning_rate", 0.01)), gamma=8.0),
    "dog:ldog_0_A": gx.params_average(gx.ldog(init_step=("heuristic", 0.01)), gamma=8.0),
    "optax:dog_0_A": gx.dog(),
    "optax:dog_1_A": gx.dog(init_step=("distance", 0.01)),
    "optax:dowg_0_A": gx.dowg(),
    "optax:dowg_1_A": gx.dowg(init_estim_sq_dist=0.01),
    "mechanic:mechanic_sgd_0_A": gx.mechanize(gx.sgd(0.1)),
    "parameterfree:cocob_0_A": gx.cocob(),
    "parameterfree:cocob_1_B": gx.cocob(alpha=10.0, weight_decay=0.05),
    "parameterfree:cocob_2_C": gx.cocob(alpha=10.0),
    "optax:cocob_0_A": gx.cocob(),
    # Step sizes found from the loss.
    "momo:momo_0_A": gx.momo(),
    "momo:momo_1_A": gx.momo(0.5, 0.8, 0.1, 0.05, bias_correction=True),
    "momo:momo_2_A": gx.momo(0.5, adapt_lower_bound=True),
    "momo:momoadam_0_A": gx.momo_adam(),
    "momo:momoadam_1_A": gx.momo_adam(0.05, 0.8, 0.95, weight_decay=0.1, divide=False),
    "momo:momoadam_2_A": gx.momo_adam(0.1, adapt_lower_bound=True),
    "optax:momo_0_A": gx.momo(),
    "optax:momo_2_A": gx.momo(0.5, adapt_lower_bound=True),
    "optax:momo_adam_0_A": gx.momo_adam(),
    # Clipping.
    "torch_optim:clip_norm_sgd_0_A": gx.chain(gx.clip_by_global_norm(1.0), gx.sgd(0.1, 0.9)),
    "torch_optim:clip_norm_adamw_1_C": gx.chain(gx.clip_by_global_norm(0.5), gx.adamw(0.01, weight_decay=0.01)),
    "torch_optim:clip_value_sgd_2_A": gx.chain(gx.clip(0.3), gx.sgd(0.1)),
    "optax:t_clip_by_block_rms_0_A": gx.chain(gx.clip_by_block_rms(0.3), gx.sgd(0.1)),
    "optax:t_clip_by_global_norm_0_C": gx.chain(gx.clip_by_global_norm(1.0), gx.adamw(0.01)),
    "keras3:SGD__clipnorm": gx.chain(gx.clip_by_norm(0.5), gx.sgd(0.1)),
    "keras3:SGD__clipvalue": gx.chain(gx.clip(0.3), gx.sgd(0.1)),
    "keras3:SGD__global_clipnorm": gx.chain(gx.clip_by_global_norm(1.0), gx.sgd(0.1)),
    "optax:t_adaptive_grad_clip_0_B": gx.chain(gx.adaptive_grad_clip(0.1), gx.sgd(0.5)),
    "pytorch_optimizer:agc_sgd_0_A": gx.chain(gx.adaptive_grad_clip(0.01, output_axis=0), gx.sgd(0.5)),
    # Cautious updates.
    "lion_pytorch:cautious_lion_0_A": gx.chain(gx.cautious(gx.scale_by_lion()), decay(0.1), rate(0.01)),
    "timm:lion_0_A": gx.chain(gx.cautious(gx.scale_by_lion()), decay(0.1), rate(0.01)),
    "timm:adamwlegacy_0_A": gx.chain(gx.cautious(gx.scale_by_adam()), decay(0.01), rate(0.01)),
    "timm:nadamw_2_A": gx.chain(gx.cautious(gx.scale_by_algoperf_nadam()), decay(0.1), rate(0.02)),
    "timm:sgdw_0_A": gx.chain(gx.cautious(gx.trace(0.9)), decay(0.1), rate(0.05)),
    # Other things done to a gradient.
    "optax:t_centralize_0_B": gx.chain(gx.centralize(0), gx.sgd(0.1, 0.9)),
    "pytorch_optimizer:gc_sgd_0_A": gx.chain(gx.centralize(0), gx.sgd(0.1, 0.9)),
    "pytorch_optimizer:gc_sgd_1_B": gx.chain(
        gx.masked(gx.centralize(0), {"v6": False, "m6x4": False, "t2x3x4": False, "c4x2x3x3": True}),
        gx.sgd(0.1, 0.9),
    ),
    "optax:t_normalize_0_A": gx.chain(gx.normalize_by_update_norm(), gx.sgd(0.1)),
    # Some of the leaves, some of the steps.
    "torch_optim:adamw_groups_0_A": gx.param_groups(
        gx.adamw(0.01, weight_decay=0.0), {"^m": {"learning_rate": 0.003, "weight_decay": 0.2}}
    ),
    "keras3:MultiOptimizer__two": gx.partition(
        {"adam": gx.adam(0.02, eps=1e-7, eps_hat=True), "sgd": gx.sgd(0.05, 0.9)},
        {"scale": "sgd", "bias": "sgd", "kernel": "adam", "cube": "sgd"},
    ),
    "optax:t_multisteps_0_A": gx.accumulate(gx.adam(0.01), 4),
    "keras3:SGD__grad_accum": gx.accumulate(gx.sgd(0.05, 0.9), 4),
    # Averages.
    "torch_optim:ema_sgd_0_A": gx.params_ema(gx.sgd(0.1, 0.9), 0.9),
    "torch_optim:swa_sgd_1_A": gx.params_average(gx.sgd(0.1)),
    "pytorch_optimizer:lookahead_sgd_0_A": gx.lookahead(gx.sgd(0.1, 0.9), 5, 0.5),
    "pytorch_optimizer:lookahead_sgd_1_A": gx.lookahead(gx.sgd(0.1, 0.9), 3, 0.8),
    "optimi:ranger_0_A": gx.lookahead(gx.radam(0.01, 0.9, 0.99, 1e-6), 4, 0.5),
    # Schedule-free.
    "schedulefree:sgd_0_A": gx.schedule_free_sgd(0.1),
    "schedulefree:sgd_1_B": gx.schedule_free_sgd(0.2, 6, 0.8, weight_decay=0.05, weight_lr_power=1.0, r=1.0),
    "schedulefree:adamw_0_A": gx.schedule_free_adamw(),
    "schedulefree:adamw_1_A": gx.schedule_free_adamw(0.02, 8, 0.9, 0.95, weight_decay=0.1),
    "schedulefree:adamw_2_B": gx.schedule_free_adamw(0.01, b1=0.95, b2=0.98, eps=1e-5, weight_lr_power=0.0, r=0.75),
    "schedulefree:adamw_3_C": gx.schedule_free_adamw(0.01, 3),
    "schedulefree:radam_0_A": gx.schedule_free_radam(0.01),
    "schedulefree:radam_1_A": gx.schedule_free_radam(0.01, b2=0.95, weight_decay=0.1, silent_sgd_phase=False),
    "schedulefree:wrapper_sgd_0_A": gx.schedule_free(gx.sgd(0.1), 0.1, 0.9),
    "schedulefree:wrapper_rmsprop_1_A": gx.schedule_free(
        gx.chain(gx.scale_by_rms(0.99, eps_in_sqrt=False), decay(0.1), rate(0.01)), 0.01, 0.8
    ),
    "schedulefree:wrapper_adamw_2_A": gx.schedule_free(
        gx.adamw(0.01, 0.0, 0.95, weight_decay=0.1), 0.01, 0.9, r=0.5, base_at_z=True
    ),
    "optax:schedule_free_wrap_0_A": gx.schedule_free(gx.rmsprop(0.01, 0.95), 0.01, 0.9, weight_lr_power=1.0),
    "optax:schedule_free_sgd_0_A": gx.schedule_free(  # optax weighs by the rate of the step after
        gx.sgd(gx.linear_schedule(0.0, 0.1, 4)), gx.linear_schedule(0.025, 0.1, 3)
    ),
    "optax:schedule_free_adamw_0_A": gx.schedule_free(
        gx.adamw(gx.linear_schedule(0.0, 0.01, 5), 0.0, weight_decay=0.1), gx.linear_schedule(0.002, 0.01, 4)
    ),
    "keras:schedulefreeadamw_0_A": gx.schedule_free_adamw(0.01, weight_lr_power=0.0),
    "keras3:ScheduleFreeAdamW__default": gx.schedule_free_adamw(weight_lr_power=0.0),
    "keras3:ScheduleFreeAdamW__warmup": gx.schedule_free_adamw(0.02, 6, 0.8, weight_lr_power=0.0),
    # Under conditions.
    "optax:reduce_on_plateau_0_A": gx.chain(gx.sgd(0.1), gx.reduce_on_plateau(0.5, 2, 0.01, cooldown=1)),
    "keras3:LossScaleOptimizer__adam_dynamic": gx.dynamic_loss_scale(gx.adam(0.01, eps=1e-7, eps_hat=True), 64.0, 3),
    "optax:t_apply_if_finite_0_C": gx.if_finite(gx.adam(0.01), 5),
}

READ = {
    "params": lambda state, params: params,
    "avg": gx.eval_params,
    "d": lambda state, params: tree.get(state, "estim_lr"),
    "s": lambda state, params: jnp.sum(tree.get(state, "s")),
    "ax": lambda state, params: tree.get(state, "ax"),
    "scale": lambda state, params: tree.get(state, "scale"),
    "x": gx.eval_params,
    "z": lambda state, params: tree.get(state, "z"),
}
"How what was recorded is found in the state and the parameters."

FUNCTIONS = {
    "functions:sam_quad_0": gx.sam(gx.sgd(0.05, 0.9), gx.sharpness_step(0.05), opaque_mode=True),
    "functions:sam_logcosh_1": gx.sam(gx.sgd(0.05, 0.9), gx.sharpness_step(0.5, adaptive=True), opaque_mode=True),
    "functions:optax_sam_opaque_quad_0": gx.sam(gx.sgd(0.05), gx.chain(gx.normalize(), gx.sgd(0.05)), opaque_mode=True),
    "functions:optax_gd_backtracking_rosen_0": gx.chain(
        gx.sgd(1.0), gx.scale_by_backtracking_linesearch(max_backtracking_steps=50)
    ),
    "functions:optax_lbfgs_zoom_quad_0": gx.lbfgs(),
    "functions:optax_lbfgs_zoom_rosen_1": gx.lbfgs(memory_size=5),
    "functions:optax_lbfgs_zoom_logcosh_2": gx.lbfgs(memory_size=3),
    "functions:optax_lbfgs_nols_quad_0": gx.lbfgs(0.5, 5, linesearch=None),
}

SCHEDULES = {
    # optax.
    "schedules:optax_cosine_decay_schedule_0": gx.cosine_decay_schedule(0.1, 50, 0.1, 2.0),
    "schedules:optax_warmup_cosine_decay_schedule_0": gx.warmup_cosine_decay_schedule(0.0, 0.1, 10, 50, 0.01),
    "schedules:optax_warmup_exponential_decay_schedule_0": gx.warmup_exponential_decay_schedule(
        0.0, 0.1, 8, 10, 0.5, end_value=0.01
    ),
    "schedules:optax_polynomial_schedule_0": gx.polynomial_schedule(0.1, 0.001, 2.0, 30, 5),
    "schedules:optax_exponential_decay_0": gx.exponential_decay(0.1, 10, 0.5, 5),
    "schedules:optax_cosine_onecycle_schedule_0": gx.cosine_onecycle_schedule(50, 0.1),
    "schedules:optax_linear_onecycle_schedule_0": gx.linear_onecycle_schedule(50, 0.1),
    "schedules:optax_piecewise_constant_schedule_0": gx.piecewise_constant_schedule(0.1, {10: 0.5, 30: 0.1}),
    "schedules:optax_piecewise_interpolate_schedule_0": gx.piecewise_interpolate_schedule(
        "cosine", 0.1, {10: 2.0, 30: 0.1, 50: 0.5}
    ),
    "schedules:optax_sgdr_schedule_0": gx.sgdr_schedule(
        [
            {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 5, "decay_steps": 20, "end_value": 0.01},
            {"init_value": 0.01, "peak_value": 0.05, "warmup_steps": 5, "decay_steps": 30, "end_value": 0.0},
        ]
    ),
    # torch.
    "schedules:StepLR_0": gx.exponential_decay(0.1, 10, 0.5, staircase=True),
    "schedules:MultiStepLR_0": gx.piecewise_constant_schedule(0.1, {10: 0.2, 25: 0.2, 40: 0.2}),
    "schedules:ConstantLR_0": gx.piecewise_constant_schedule(0.025, {10: 4.0}),
    "schedules:LinearLR_0": gx.linear_schedule(0.01, 0.1, 20),
    "schedules:ExponentialLR_0": gx.exponential_decay(0.1, 1, 0.9),
    "schedules:PolynomialLR_0": gx.polynomial_schedule(0.1, 0.0, 2.0, 30),
    "schedules:CosineAnnealingLR_0": gx.cosine_annealing_schedule(0.1, 50, 0.01),
    "schedules:CosineAnnealingLR_1": gx.cosine_annealing_schedule(0.1, 15),
    "schedules:CosineAnnealingWarmRestarts_0": gx.cosine_decay_restarts_schedule(0.1, 10, alpha=0.01),
    "schedules:SequentialLR_0": gx.join_schedules(
        [gx.linear_schedule(0.01, 0.1, 10), gx.cosine_annealing_schedule(0.1, 50)], [10]
    ),
    # The manifest's `base_lr` is the optimizer's; the cycles were recorded from 0.01 on.
    "schedules:CyclicLR_0": gx.cyclic_schedule(0.01, 0.2, 8, mode="triangular2"),
    "schedules:CyclicLR_0::momentum": gx.cyclic_schedule(0.9, 0.8, 8, mode="triangular2"),
    "schedules:CyclicLR_1": gx.cyclic_schedule(0.01, 0.2, 6, 10, "exp_range", 0.98),
    "schedules:CyclicLR_1::momentum": gx.cyclic_schedule(0.9, 0.8, 6, 10, "exp_range", 0.98),
    # torch's one cycle reaches each corner one step before optax's.
    "schedules:OneCycleLR_0": gx.piecewise_interpolate_schedule("cosine", 0.02, {17: 25.0, 59: 1 / 25e4}),
    "schedules:OneCycleLR_0::momentum": gx.piecewise_interpolate_schedule("cosine", 0.95, {17: 17 / 19, 59: 19 / 17}),
    "schedules:OneCycleLR_1": gx.piecewise_interpolate_schedule("linear", 0.02, {23: 25.0, 46: 1 / 25, 59: 1e-4}),
    "schedules:OneCycleLR_1::momentum": gx.piecewise_interpolate_schedule("linear", 0.95, {23: 17 / 19, 46: 19 / 17}),
    # pytorch_optimizer.
    "schedules:k_wsd_1": gx.warmup_stable_decay_schedule(0.0, 0.1, 5, 20, 30, 0.0, "sqrt"),
    "schedules:k_rex_0": functools.partial(zero_at_first, gx.rex_schedule(0.1, 60)),
    "schedules:k_cosine_warmup_restarts_0": gx.sgdr_schedule(
        [
            {"init_value": 0.001, "peak_value": peak, "warmup_steps": 4, "decay_steps": 20, "end_value": 0.001}
            for peak in (0.1, 0.05, 0.025)
        ]
    ),
    # Keras.
    "schedules_keras3:v00": gx.exponential_decay(0.1, 10, 0.9),
    "schedules_keras3:v01": gx.exponential_decay(0.1, 10, 0.9, staircase=True),
    "schedules_keras3:v02": gx.piecewise_constant_schedule(1.0, {11: 0.5, 21: 0.2}),
    "schedules_keras3:v03": gx.polynomial_schedule(0.1, 0.01, 0.5, 25),
    "schedules_keras3:v04": gx.polynomial_cycle_schedule(0.1, 0.01, 1.0, 9),
    "schedules_keras3:v05": gx.inverse_time_decay(0.1, 0.5, 5),
    "schedules_keras3:v06": gx.inverse_time_decay(0.1, 0.5, 5, staircase=True),
    "schedules_keras3:v07": gx.cosine_decay_schedule(0.1, 40),
    "schedules_keras3:v08": gx.warmup_cosine_decay_schedule(0.0, 0.1, 10, 40, 0.01),
    "schedules_keras3:v09": gx.cosine_decay_restarts_schedule(0.1, 7),
    "schedules_keras3:v10": gx.cosine_decay_restarts_schedule(0.1, 10, 1.0, 0.9, 0.05),
}

PLATEAUS = {
    "schedules:ReduceLROnPlateau_0": gx.reduce_on_plateau(0.5, 4, 0.01, cooldown=2),
}

LEFT_OUT = reasons(
    {
        "known to be wrong: see the manifest's `deviation`": {
            "optax": "adan_0_A rprop_0_A",
            "timm": "lookahead_0_A",
        },
        "a method that gradtx does not have": {
            "torch_optim": "sparseadam_0_C",
            "parameterfree": "kt_0_A",
            "dadaptation": "dadaptsgd_0_A dadaptsgd_1_A dadaptadagrad_0_A dadaptlion_0_A dadaptadan_0_A",
            "optax": """acprop_0_A acprop_1_B ademamix_0_A simplified_ademamix_0_A adopt_0_A
                galore_0_A galore_1_D""",
            "optimi": "stableadamw_0_A stableadamw_1_B stableadamw_2_C",
            "timm": "laprop_0_A adopt_0_A adamp_0_B sgdp_0_B mars_0_A mars_1_A",
            "pytorch_optimizer": """adabound_0_A adabound_1_A adai_0_A adagc_0_A adagc_1_A adamp_0_A adamp_1_B sgdp_0_A
                adams_0_A adamc_0_A adapnm_0_A pnm_0_A ademamix_0_A ademamix_1_A simplifiedademamix_0_A
                simplifiedademamix_1_A adopt_0_A adopt_1_B aggmo_0_A aida_0_A amos_0_A amos_1_B ano_0_A avagrad_0_A
                bcos_0_A came_0_A came_1_B dadaptsgd_0_A dadaptadagrad_0_A
                dadaptlion_0_A diffgrad_0_A exadam_0_A fadam_0_A grams_0_A grokfastadamw_0_A grokfastadamw_1_A
                kate_0_A laprop_0_A laprop_1_A mars_0_A mars_1_A msvag_0_A padam_0_A pid_0_A
                qhadam_0_A qhm_0_A racs_0_A sgdsai_0_A spam_0_A stablespam_0_A stableadamw_0_A stableadamw_1_B
                stableadamw_2_C splus_0_D swats_0_A tam_0_A adatam_0_A asgd_0_A accsgd_0_A rose_0_A apollodqn_0_A
                srmm_0_A grokfast_ema_sgd_0_A grokfast_ema_sgd_1_A grokfast_ma_sgd_0_A orthograd_sgd_0_A""",
        },
        "a method that preconditions matrices, which gradtx does not have": {
            "pytorch_optimizer": """shampoo_0_A shampoo_1_A scalableshampoo_0_A soap_0_D soap_1_D
                normuon_f32ns_0_A adamuon_f32ns_0_A adago_f32ns_0_A scion_f32ns_0_A scion_f32ns_1_A""",
        },
        "estimates the distance from every third element, to save memory": {"prodigyopt": "prodigy_3_A"},
        "divides by 1 + η λ the parameters alone, not the step as well": {"optax": "momo_1_A momo_adam_1_A"},
        "takes the parameters before the base optimizer's update, and finds Δ anew": {"optax": "mechanize_0_A"},
        "in float32 further from its own equations than the tolerance; see papers/mechanic.py": {
            "mechanic": "mechanic_adam_1_A"
        },
        "for its powers of float32 further from its own equations than the tolerance; see keras3:Muon": {
            "keras": "muon_0_A"
        },
        "a softened cautious mask": {"lion_pytorch": "cautious_lion_1_A"},
        "parameters and arithmetic in bfloat16 throughout; gradtx computes in float32 and rounds once": {
            "optimi": """bf16_kahan_sgd_0_A bf16_plain_sgd_0_A bf16_kahan_adamw_0_A bf16_plain_adamw_0_A
                bf16_kahan_stableadamw_0_A bf16_plain_stableadamw_0_A bf16_kahan_lion_0_A bf16_plain_lion_0_A
                bf16_kahan_adan_0_A bf16_plain_adan_0_A""",
        },
        "the average is written over the parameters, which only Keras's facade does": {"keras": "adam_2_A"},
        "clips by the largest element's norm, ‖g‖∞, over the whole tree": {"torch_optim": "clip_norm_inf_sgd_3_A"},
        "an Adafactor of its own: fairseq's, big_vision's or a mixture; gradtx has optax's and torch's": {
            "timm": "adafactor_0_A adafactor_1_B adafactorbigvision_0_A adafactorbigvision_1_B",
            "pytorch_optimizer": "adafactor_0_A adafactor_1_B",
        },
        "begins the first moment at 10⁻⁶ rather than 0": {"pytorch_optimizer": "yogi_0_A yogi_1_B"},
        "bounds the trust ratio by 1": {"timm": "lamb_1_B lars_1_B"},
        "divides by ‖g‖ + λ ‖θ‖, not ‖g + λ θ‖": {"timm": "lars_0_A", "pytorch_optimizer": "lars_1_B"},
        "takes the norms of a leaf of three axes along one of them only": {"pytorch_optimizer": "agc_sgd_1_B"},
        "divides the step by 1 − β₁ᵗ after the trust ratio, which had made up for it": {
            "pytorch_optimizer": "lamb_0_A lamb_1_B lamb_2_C"
        },
        "moves where it started from by the decay, since it does without momentum": {"madgrad": "madgrad_2_A"},
        "a mirror-descent method that gradtx does not have": {"madgrad": "mirrormadgrad_0_A"},
        "bounds that never shrink, although they are means": {"pytorch_optimizer": "sm3_1_B"},
        "an AMSGrad of AdaBelief": {"adabelief_pytorch": "adabelief_2_A"},
        "makes no update before the rectification begins": {"pytorch_optimizer": "radam_0_A"},
        "a mixture of its own of RAdam, centralization and lookahead": {"pytorch_optimizer": "ranger_0_A ranger_1_B"},
        "several steps in one call, the first one scaled by ‖g‖₁, or torch's own line search": {
            "functions": "lbfgs_torch_quad_0 lbfgs_torch_quad_1 lbfgs_torch_rosen_2"
        },
        "decays the parameters, and with them the average, before the update": {"keras": "schedulefreeadamw_1_A"},
        "falls below its least value, then jumps back to it": {"schedules": "k_wsd_0"},
    }
)
