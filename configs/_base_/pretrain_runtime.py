"""Runtime of pre-training: hooks, logs, checkpoints."""

default_scope = 'mmpretrain'
custom_imports = dict(imports=['vito_mm'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='AtomicCheckpointHook', interval=1000, by_epoch=False, max_keep_ckpts=3),
    sampler_seed=None,  # ClipSampler is endless, there is no epoch to seed
    # statistics='online' gives the target the running statistics of the online network.
    target_ema=dict(type='TargetEMAHook', statistics='own'),
    non_finite=dict(type='NonFiniteHook', max_in_row=10),
    collapse=dict(type='CollapseHook', threshold=0.05, begin=500),
    skipped_videos=dict(type='SkippedVideosHook'),
    run_record=dict(type='RunRecordHook'),
)

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
log_processor = dict(window_size=50, by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
