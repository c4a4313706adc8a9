__version__ = "0.1.0"

import warnings
warnings.filterwarnings('ignore', message='.*torch.jit.script.*', category=FutureWarning)  # fastai 2.8 on torch 2.15, at import, nothing of ours
