/** What does a new RapidFire notebook hold? Cells that run as they are, offline, and say what to change. */

export interface StarterCell {
  readonly kind: 'code' | 'markdown';
  readonly source: string;
}

/** One cell that starts an experiment. */
export const STARTER_CELL = `%load_ext rf_notebook
from rf_notebook import Experiment, demo
from rf_notebook.automl import List, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig

# demo.* is a small model and its data, for trying out: put your own here.
search = RFGridSearch(
    RFModelConfig(
        model_name=demo.MODEL_NAME,
        formatting_func=demo.format_row,
        peft_config=RFLoraConfig(r=List([4, 16]), lora_alpha=16, target_modules=["q_proj", "v_proj"]),
        training_args=RFSFTConfig(
            learning_rate=List([5e-4, 5e-3]),
            num_train_epochs=1,
            max_length=96,
            logging_steps=2,
            gradient_checkpointing=False,
            bf16=False,
        ),
    ),
    "SFT",
)
experiment = Experiment("my-first-experiment")
experiment.run_fit(search, demo.create_model, demo.train_dataset(512), demo.eval_dataset(48), num_chunks=4)`;

/** A whole notebook. */
export const STARTER_NOTEBOOK: readonly StarterCell[] = [
  {
    kind: 'markdown',
    source:
      '# An experiment with RapidFire\n\nRun the next cell: four configs train side by side. The panel below it and the ' +
      'sidebar on the left stop, resume and clone them while they train.'
  },
  { kind: 'code', source: STARTER_CELL },
  { kind: 'markdown', source: '## Which one is best?' },
  { kind: 'code', source: 'experiment.wait()\nexperiment.best()' }
];
