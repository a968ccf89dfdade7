export declare class Journey {}
