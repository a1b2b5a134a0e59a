"""BDD100K segmentation by UperNet: as upernet_cityscapes.py, whose 19 classes it shares.

    mim train mmseg configs/protocols/upernet_bdd100k.py --gpus 4 --launcher pytorch

Metric: mIoU on val. Data in data/bdd100k, as the data set comes: images/10k/{train,val} and
labels/sem_seg/masks/{train,val}, whose masks hold the numbers of Cityscapes' classes.
"""

_base_ = 'upernet_cityscapes.py'

dataset_type = 'BDD100KDataset'
data_root = 'data/bdd100k/'
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/10k/train', seg_map_path='labels/sem_seg/masks/train'),
    )
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/10k/val', seg_map_path='labels/sem_seg/masks/val'),
    )
)
test_dataloader = val_dataloader
