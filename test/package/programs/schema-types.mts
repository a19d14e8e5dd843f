/** Types that follow from schemas are written out in the package: they are those of the checkout, whose declarations name zod. */
import type * as checkout from 'checkout';
import type * as packed from 'residual-skip';

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

type Each<Checks extends readonly true[]> = Checks;

export type Checked = Each<
  [
    Same<packed.AuditEnergy, checkout.AuditEnergy>,
    Same<packed.AuditHeader, checkout.AuditHeader>,
    Same<packed.AuditItem, checkout.AuditItem>,
    Same<packed.CalibrateOptions['limits'], checkout.CalibrateOptions['limits']>,
    Same<packed.CalibrateOptions['metric'], checkout.CalibrateOptions['metric']>,
    Same<keyof packed.CalibrateOptions, keyof checkout.CalibrateOptions>,
    Same<packed.FrontSpec, checkout.FrontSpec>,
    Same<packed.Guard, checkout.Guard>,
    Same<packed.ScoreDistribution, checkout.ScoreDistribution>,
    Same<packed.SkipPolicy['expected'], checkout.SkipPolicy['expected']>,
    Same<packed.SkipPolicy['heads'], checkout.SkipPolicy['heads']>,
    Same<packed.SkipPolicy['promise'], checkout.SkipPolicy['promise']>,
    Same<packed.SpeedupOptions['for'], checkout.SpeedupOptions['for']>,
    Same<keyof packed.SpeedupOptions, keyof checkout.SpeedupOptions>,
  ]
>;
