"""configs/det/vito_coco_stock.py at demo size: ResNet-18, MiniScenes as COCO, 128 x 96 px.

About a minute and a half on one CPU core. The classes are COCO's 80, of which MiniScenes uses
eight.
"""

_base_ = ['../det/vito_coco_stock.py', '../_base_/miniscenes/mask_rcnn_r18.py']

data_root = 'data/miniscenes/coco/'

model = {{_base_.demo_model}}

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, pipeline={{_base_.demo_train_pipeline}}),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, pipeline={{_base_.demo_test_pipeline}}),
)
test_dataloader = val_dataloader
auto_scale_lr = dict(base_batch_size=8)
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

optim_wrapper = {{_base_.demo_optim_wrapper}}
param_scheduler = {{_base_.demo_param_scheduler}}
train_cfg = {{_base_.demo_train_cfg}}
default_hooks = {{_base_.demo_default_hooks}}
randomness = dict(seed=0)
